"""Derived runs out of a catalog, with their files.

Enter: the uid of a derived run. Leaves: neither the run nor its slices. Raw runs, and files that
this package did not write, are left alone.
"""

from pathlib import Path
from typing import Any

from tiled.client.base import BaseClient

from ..errors import PublishError
from ..intake.uris import path_of
from .catalog import find_run
from .explain import explain_request
from .identity import SPEC, is_derived
from .volume_documents import STREAM
from .volume_file import owner_of


def remove_derived_run(client: BaseClient, uid: str) -> Path | None:
    """Remove a run that we derived, and the file of its slices.

    Tiled leaves the files of registered data alone when their node is removed, which is right for
    raw data and would pile up volumes here.

    Parameters
    ----------
    client : Tiled client
        That may write.
    uid : str
        Of the derived run.

    Returns
    -------
    Path or None
        The file that was removed; None where there was none.

    Raises
    ------
    PublishError
        A raw run, a run or a file that is not ours, or no permission.
    """
    run = find_run(client, uid)
    start = run.metadata["start"]
    if not is_derived(start) or SPEC["name"] not in {spec.name for spec in run.specs}:
        raise PublishError(
            f"run {start['uid']}: expected a run that tomogan_bluesky derived from another, got "
            f"one of plan {start.get('plan_name', 'unknown')!r}; only derived runs can be computed "
            "again, so nothing else is removed"
        )
    files = sorted(path for path in _files(run) if path.exists())
    for path in files:
        owner = owner_of(path)
        if owner != start["uid"]:
            raise PublishError(
                f"{path}: expected the slices of run {start['uid']}, got a file of "
                f"{owner or 'somebody else'}; a file that this package did not write for this run "
                "is left alone: remove it by hand"
            )
    # Node first: slices without a node are waste, a node without slices is broken.
    remove_node(client, start["uid"])
    for path in files:
        try:
            path.unlink()
        except OSError as error:
            raise PublishError(
                f"{path}: run {start['uid']} is removed from the catalog, but its file could not "
                f"be ({error.strerror}); remove it by hand"
            ) from error
    return files[0] if files else None


def remove_node(client: BaseClient, uid: str) -> None:
    """Remove a run from a catalog; files that are registered with it stay.

    Raises
    ------
    PublishError
    """
    with explain_request(f"Tiled to remove run {uid}"):
        client[uid].delete(recursive=True, external_only=False)


def _files(run: Any) -> set[Path]:
    """Local files that are registered with a run."""
    if STREAM not in run:
        return set()
    stream = run[STREAM].base
    uris = {
        asset.data_uri
        for key in stream
        for source in stream[key].data_sources() or ()
        if source.management == "external"
        for asset in source.assets
    }
    return {path for uri in uris if (path := path_of(uri)) is not None}
