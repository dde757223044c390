"""Frames in sequences of TIFF files.

Enter: where the files are, and how they are named. Leave: blocks of their frames.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..errors import AssetError

_POLL_S = 0.02


class TiffFrames:
    """A sequence of TIFF files of one frame each.

    Parameters
    ----------
    path : str
        Beginning of the path of all files: their folder, or more of it.
    template : str
        The rest of it, as ``/img_%05d.tif`` or ``/img_{:05d}.tif``.
    first_number : int
        Number in the name of the file of frame 0.
    wait_s : float
        Seconds for a file to appear.
    allowed : callable
        Returns the path of a file without links, or raises AssetError where it may not be read.
    """

    def __init__(
        self,
        path: str,
        template: str,
        first_number: int,
        wait_s: float,
        allowed: Callable[[Path], Path],
    ) -> None:
        from bluesky_tiled_plugins.utils import compile_template

        self._start = path
        self._template = compile_template(template)
        self._first_number = first_number
        self._wait_s = wait_s
        self._allowed = allowed
        self._seen = 0  # a frame that is there, if any is
        self._example: np.ndarray | None = None

    @property
    def dtype(self) -> np.dtype:
        return self._some_frame().dtype

    @property
    def frame_shape(self) -> tuple[int, ...]:
        return self._some_frame().shape

    def count(self, at_least: int) -> int:
        absent = self.absent(range(at_least))
        return next((n for n in range(at_least) if n in absent), at_least)

    def absent(self, indices: Sequence[int]) -> dict[int, str]:
        deadline = time.monotonic() + self._wait_s
        missing = set(indices)
        while missing := {index for index in missing if not self._path(index).exists()}:
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        self._seen = min(set(indices) - missing, default=self._seen)
        if not missing:
            return {}
        return dict.fromkeys(sorted(missing), self._why_absent(min(missing)))

    def has(self, index: int) -> bool:
        return self._path(index).exists()

    def read(self, indices: slice | list[int], rows: slice) -> np.ndarray:
        wanted = range(indices.start, indices.stop) if isinstance(indices, slice) else indices
        return np.stack([self._frame(index)[rows] for index in wanted])

    def times(self, indices: slice) -> np.ndarray | None:
        return None

    def close(self) -> None:
        self._example = None

    def _path(self, index: int) -> Path:
        return Path(self._start + self._template.format(index + self._first_number))

    def _why_absent(self, index: int) -> str:
        path = self._path(index)
        there = sorted(path.parent.glob(f"*{path.suffix}")) if path.parent.is_dir() else []
        return (
            f"expected a file for each frame, such as {path}, which is not there; the folder has "
            + (f"{there[0].name} to {there[-1].name}" if there else f"no {path.suffix} files")
            + "; where files are numbered from another number than the documents have it, set "
            "scan.first_file_number"
        )

    def _some_frame(self) -> np.ndarray:
        if self._example is None:
            self.absent([self._seen])
            self._example = self._frame(self._seen)
        return self._example

    def _frame(self, index: int) -> np.ndarray:
        import tifffile

        path = self._allowed(self._path(index))
        try:
            return np.asarray(tifffile.imread(path)).squeeze()
        except (OSError, tifffile.TiffFileError) as error:
            raise AssetError(
                f"{path}: expected a TIFF file with one frame, got: {error}; is it there, on this "
                "machine?"
            ) from error
