"""Who may see a derived run: nobody who may not see the raw one.

Enter: the start document of a derived run, and the catalog that it goes to. Leaves: the start
document with the access tags that its node gets. Tiled takes these tags out of a start document and
puts them on the node, where people may change them later: so the raw run's node decides, and not
what was once in its documents.
"""

from collections.abc import Mapping
from typing import Any

from tiled.client.base import BaseClient

from ..errors import PublishError
from .explain import explain_request
from .identity import ORIGINAL_RUN

TAGS = "tiled_access_tags"
"""Start key from which Tiled takes the access tags of a run's node."""

# Tags of Tiled that name one person or service; no one can put them on a node by hand.
_OF_PRINCIPALS = ("user:", "service:")


def tags_of(node: Any) -> list[str] | None:
    """The access tags of a node; None where its server knows none.

    Servers before 0.2.17 of Tiled have them in the node's access blob.
    """
    attributes = node.item["attributes"]
    tags = attributes.get("access_tags")
    if tags is None:
        tags = (attributes.get("access_blob") or {}).get("tags")
    return None if tags is None else sorted(tags)


def as_private_as_raw(client: BaseClient, start_doc: Mapping[str, Any]) -> dict[str, Any]:
    """The start document of a derived run, with the access tags of its raw run.

    Tags that name a person can't be passed on, and "public" is for people to give. Where no other
    is left, the node belongs to whoever publishes, and nobody else sees it.

    Raises
    ------
    ServerAwayError
        The server does not say what it has; nothing is published then.
    """
    with explain_request(f"Tiled to say who may see run {start_doc[ORIGINAL_RUN]}"):
        try:
            tags = tags_of(client[start_doc[ORIGINAL_RUN]])
        except KeyError:
            tags = None  # not in this catalog: what its documents say counts
    if tags is None:
        tags = start_doc.get(TAGS)
    kept = [t for t in tags or () if t != "public" and not t.startswith(_OF_PRINCIPALS)]
    doc = {key: value for key, value in start_doc.items() if key != TAGS}
    return {**doc, TAGS: kept} if kept else doc


def check_privacy(client: BaseClient, start_doc: Mapping[str, Any]) -> None:
    """See that a server has put the tags on a run that it was given.

    Raises
    ------
    PublishError
        It has not: it would show the run to others. The run is removed.
    """
    if TAGS not in start_doc:
        return
    uid = start_doc["uid"]
    with explain_request(f"Tiled to say who may see run {uid}"):
        node = client[uid]
        if set(tags_of(node) or ()) == set(start_doc[TAGS]):
            return
        node.delete(recursive=True, external_only=False)
    raise PublishError(
        f"run {uid}: expected a server that keeps it from all but those who may see "
        f"{', '.join(start_doc[TAGS])}, got one without access control, which would show it to "
        "everybody; publish to another server, or take the access tags off the raw run"
    )
