"""One scan of a catalog, open to be reconstructed in one way or another, part by part.

Enters: a scan whose frames are where the catalog has them. Leave: slabs of slices in 1/pixel: of
all its projections, of some of them, or of changed frames. Never more than a part is in memory.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..config import ReconstructionConfig
from ..errors import MissingFramesError
from ..geometry import ScanGeometry
from ..pipeline.slabs import SlabPipeline
from ..recon.backends import make_reconstructor


@dataclass(frozen=True, eq=False)
class OpenScan:
    """A scan that can be read as long as its catalog is.

    Attributes
    ----------
    start : mapping
        Start document of its run.
    rotation_centre : float
        In pixels of the recorded frames.
    rows : tuple of int
        Rows [first, last) of the binned detector that are reconstructed.
    dark : float32 array, shape (row, column)
        Mean dark frame.
    flats, darks : arrays, shape (frame, row, column), or None
        Some single frames of the run's own references, as recorded.
    pipeline : SlabPipeline
        Of all projections.
    config : ReconstructionConfig
    device : str
    read : callable
        Reads recorded rows, as `intake.scan.Scan.slabs` does.
    """

    start: Mapping[str, Any]
    rotation_centre: float
    rows: tuple[int, int]
    dark: np.ndarray
    flats: np.ndarray | None
    darks: np.ndarray | None
    pipeline: SlabPipeline
    config: ReconstructionConfig
    device: str
    read: Callable[[list[tuple[int, int]]], Iterator[np.ndarray]]

    @property
    def n_angles(self) -> int:
        """Projections that are reconstructed."""
        return self.pipeline.geometry.n_angles

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slice, y, x)."""
        first, last = self.rows
        return last - first, self.pipeline.geometry.n_columns, self.pipeline.geometry.n_columns

    def slices(self) -> Iterator[tuple[int, torch.Tensor]]:
        """First slice and slices, shape (slice, y, x), of each slab."""
        for slab in self.pipeline.slabs(*self.rows, self.read):
            yield slab.first - self.rows[0], slab.reconstruct()[0].cpu()

    def parts(self) -> Iterator["ScanPart"]:
        """The scan's frames, part by part."""
        cuts = self.pipeline.cuts(*self.rows)
        recorded = [self.pipeline.preprocess.recorded(*cut) for cut in cuts]
        for cut, rows, frames in zip(cuts, recorded, self.read(recorded), strict=True):
            yield ScanPart(cut[0] - self.rows[0], cut, rows, frames)

    def attenuation(self, part: "ScanPart", frames: np.ndarray | None = None) -> torch.Tensor:
        """Line integrals of a part, shape (row, angle, column), of its own frames or of changed
        ones of the same shape."""
        return self.pipeline.attenuation(*part.rows, part.frames if frames is None else frames)[0]

    def reconstructor(self, angles: slice = slice(None)) -> Callable[[torch.Tensor], torch.Tensor]:
        """What makes slices, on the CPU, from the attenuation of a part.

        Parameters
        ----------
        angles : slice
            The projections to use; the attenuation given is still that of all.
        """
        geometry = self.pipeline.geometry
        theta = geometry.theta[angles]
        if len(theta) == 0:
            raise MissingFramesError(
                f"expected projections among {angles}, but the scan has {self.n_angles}"
            )
        some = ScanGeometry(theta, geometry.rotation_centre, geometry.n_columns)
        reconstruct = make_reconstructor(some, self.config, self.device)
        return lambda attenuation: reconstruct(attenuation[:, angles].contiguous()).cpu()


@dataclass(frozen=True, eq=False)
class ScanPart:
    """Frames of neighbouring rows.

    Attributes
    ----------
    first : int
        Slice that the first row becomes.
    rows, recorded : tuple of int
        Rows [first, last) of the binned detector; rows as recorded, with those around them.
    frames : array, shape (row, angle, column)
        As recorded.
    """

    first: int
    rows: tuple[int, int]
    recorded: tuple[int, int]
    frames: np.ndarray
