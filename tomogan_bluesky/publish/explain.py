"""What went wrong with a Tiled server, in words that help and without its key.

Enter: exceptions of httpx and Tiled. Leave: `PublishError`, or `ServerAwayError` where the same
request may succeed later.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from ..errors import PublishError, ServerAwayError

# Keys expire and are renewed; the rest is said of time-outs, overload and restarts.
_AWAY = {401, 403, 408, 429}


@contextmanager
def explain_connection(where: str) -> Iterator[None]:
    """For making a connection to `where`, an address or a profile."""
    try:
        yield
    except httpx.TransportError as error:
        raise ServerAwayError(
            f"{where}: expected a Tiled server to answer, got {in_words(error)}; start it, or see "
            "that the address and the network are right"
        ) from error
    except (httpx.HTTPStatusError, ValueError, RuntimeError) as error:
        raise kind_of(error)(
            f"{where}: expected a Tiled server that lets us in, got {in_words(error)}; see that "
            "the address is that of a Tiled server and TILED_API_KEY is a key of it"
        ) from error


@contextmanager
def explain_request(expected: str) -> Iterator[None]:
    """For requests to a server that we are connected to; `expected` says what it should do."""
    try:
        yield
    except httpx.HTTPError as error:
        raise kind_of(error)(
            f"expected {expected}, got {in_words(error)}; {what_to_do(error)}"
        ) from error


def kind_of(error: Exception) -> type[PublishError]:
    """`ServerAwayError` where the same request may succeed later."""
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        return ServerAwayError if status in _AWAY or status >= 500 else PublishError
    return ServerAwayError if isinstance(error, httpx.TransportError) else PublishError


def in_words(error: Exception) -> str:
    """Type and message, without the key, whichever way it came into the message."""
    message = str(error).partition("\n")[0]  # httpx adds a line with a link
    text = re.sub(r"api_key=[^&\s]+", "api_key=…", f"{type(error).__name__}: {message}")
    key = os.environ.get("TILED_API_KEY")
    return text.replace(key, "…") if key else text


def what_to_do(error: Exception) -> str:
    """Advice about a failed request."""
    status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
    if status == 409:
        return "a run with this uid is in the catalog already, and runs are never written over"
    if status in (401, 403):
        return "see that TILED_API_KEY is a key that may do this"
    if isinstance(error, httpx.TransportError):
        return "see that the server runs, then try again"
    return "see the log of the server, then try again"
