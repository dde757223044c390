"""Paths as `file` URIs and back, the way Tiled reads them.

Tiled takes the path of a ``file://localhost/…`` URI literally: it unescapes no ``%xx``. So nothing
is escaped here, and a path that an unescaped URI cannot carry is refused.
"""

from pathlib import Path
from urllib.parse import urlsplit

from ..errors import ConfigurationError

_NOT_IN_A_URI = frozenset("?#;%")


def file_uri(path: Path) -> str:
    """URI of a file, as it stands in a `stream_resource` document.

    Raises
    ------
    ConfigurationError
        The absolute path contains ``?``, ``#``, ``;`` or ``%``.
    """
    absolute = str(path.absolute())
    bad = sorted(_NOT_IN_A_URI.intersection(absolute))
    if bad:
        raise ConfigurationError(
            f"{absolute}: expected a path without any of ? # ; %, because Tiled finds files by "
            f"URIs that it does not unescape, got {' '.join(bad)}; use a folder of another name"
        )
    return f"file://localhost{absolute}"


def path_of(uri: str) -> Path | None:
    """Path of a local `file` URI; None for any other URI."""
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        return None
    return Path(parts.path)
