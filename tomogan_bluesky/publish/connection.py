"""A client of a Tiled server, soon or not at all.

Enter: the address of a server, or the name of a profile. Leaves: a client. Nothing here knows of
the embedded server: any Tiled server will do.
"""

from urllib.parse import urlsplit

import httpx
from tiled.client import from_profile
from tiled.client.base import BaseClient
from tiled.client.constructors import from_context
from tiled.client.context import Context
from tiled.profiles import load_profiles

from ..errors import PublishError, ServerAwayError
from .explain import explain_connection

# Seconds until a server that does not answer counts as down. Tiled's own client tries for up to 45.
_ANSWER_WITHIN = 5.0


def connect(target: BaseClient | str) -> BaseClient:
    """A Tiled client.

    Parameters
    ----------
    target : Tiled client or str
        A client is returned as it is. A string that starts with ``http`` is the address of a
        server, any other the name of a Tiled profile. The API key is taken from the environment
        variable ``TILED_API_KEY``. Nobody is asked for a password.

    Raises
    ------
    PublishError
        No such profile, no server there, or one that does not let us in.
    """
    if isinstance(target, BaseClient):
        return target
    if not target.startswith(("http://", "https://")):
        return _from_profile(target)
    if "api_key=" in target:
        raise PublishError(
            f"{target.partition('?')[0]}: expected an address without a key, got one with api_key= "
            "in it, which ends up in logs; put the key into the environment as TILED_API_KEY"
        )
    with explain_connection(target):
        _knock(target)
        context, path = Context.from_any_uri(target)
        try:
            about = context.server_info.authentication
            # Where nobody can log in, there are no tokens of a login either.
            known = context.authenticated or not about.required
            if not known and not (about.providers and context.use_cached_tokens()):
                raise ServerAwayError(
                    f"{target}: expected to be let in, but the server wants authentication; put "
                    "an API key into the environment as TILED_API_KEY, or log in once with: tiled "
                    "login"
                )
            # Whoever writes asks for these, with a request each time, unless they are here.
            return from_context(context, node_path_parts=path, include_data_sources=True)
        except Exception:
            context.close()
            raise


def _from_profile(name: str) -> BaseClient:
    profiles = load_profiles()
    if name not in profiles:
        raise PublishError(
            f"{name!r}: expected the address of a Tiled server (http://…) or the name of a Tiled "
            f"profile, got neither; profiles here: {', '.join(sorted(profiles)) or 'none'}; "
            "see: tiled profile list (a profile with an api_key in it is skipped by Tiled)"
        )
    uri = profiles[name][1].get("uri")
    with explain_connection(f"profile {name!r}"):
        if uri is not None:
            _knock(uri)
        return from_profile(name, include_data_sources=True)


def knock(client: BaseClient) -> None:
    """See whether a server answers and lets us in, without being patient as Tiled's client is.

    Raises
    ------
    ServerAwayError
    """
    with explain_connection(address_of(client)):
        http = client.context.http_client
        http.get(client.uri, timeout=_ANSWER_WITHIN).raise_for_status()


def address_of(client: BaseClient) -> str:
    """The address of a server, without a key."""
    return str(client.uri).partition("?")[0]


def _knock(uri: str) -> None:
    """Fail soon where nobody answers."""
    parts = urlsplit(uri)
    httpx.get(f"{parts.scheme}://{parts.netloc}/healthz", timeout=_ANSWER_WITHIN)
