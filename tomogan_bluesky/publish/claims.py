"""One process at a time: claims on files, which end with the process, however that ends.

Enters: the path of a claim. Leaves: whether it is ours.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self


class Claim:
    """A claim that is held; `Claim.take` gets one.

    It is a lock of the kernel on a file (``flock``), and so it can neither be left behind by a
    process that was killed nor be held by two. On a disk that several machines share, it holds
    among these, too.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """Claim a path, without waiting; None where somebody else holds it.

        Parameters
        ----------
        path : Path
            Made while the claim is held; its folder must be there.

        Raises
        ------
        OSError
            The file cannot be made.
        """
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(descriptor, path):
                    return cls(path, descriptor)
            except BlockingIOError:
                os.close(descriptor)
                return None
            os.close(descriptor)  # its holder removed it since we opened it

    def release(self) -> None:
        """Give it up. The file goes, too, while it is still ours."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
