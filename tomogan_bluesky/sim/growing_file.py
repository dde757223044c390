"""An HDF5 file that others read while it grows, as the file writers of detectors make them.

Enter: frames, or numbers, one of each dataset at a time. Leaves: a file in SWMR mode, in which
what was appended can be read at once.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

_NUMBERS_A_CHUNK = 1024  # as PandA's and areaDetector's writers have it for scalar datasets


class GrowingFile:
    """Datasets that grow together along their first axis.

    Parameters
    ----------
    path : Path
        Of a file that is not there yet. Its folder is made.
    datasets : mapping of str to ((int, ...), dtype)
        Names, and what one entry of each looks like: shape () for numbers.
    """

    def __init__(self, path: Path, datasets: Mapping[str, tuple[tuple[int, ...], Any]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.count = 0
        self._file = h5py.File(path, "x", libver="latest")
        self._datasets = {
            name: self._file.create_dataset(
                name,
                shape=(0, *shape),
                maxshape=(None, *shape),
                dtype=dtype,
                chunks=(1, *shape) if shape else (_NUMBERS_A_CHUNK,),
            )
            for name, (shape, dtype) in datasets.items()
        }
        self._file.swmr_mode = True

    def append(self, entries: Mapping[str, np.ndarray | float]) -> None:
        """Add one entry to each dataset, and let readers see it."""
        for name, entry in entries.items():
            dataset = self._datasets[name]
            dataset.resize(self.count + 1, axis=0)
            dataset[self.count] = entry
            dataset.flush()
        self.count += 1

    def chunk_shape(self, name: str) -> tuple[int, ...]:
        """Shape of the chunks of a dataset, as documents tell it to readers."""
        return tuple(self._datasets[name].chunks)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._file.close()
