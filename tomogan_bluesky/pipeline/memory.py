"""How much memory a scan takes, told before it is reconstructed.

Enters: the shape of a scan, and what is to be done with it. Leaves: a plan of slabs that keeps to a
bound, and the prediction, part by part.
"""

import logging
from dataclasses import dataclass, field

import numpy as np
import torch

from ..config import ReconstructionConfig
from ..errors import ConfigurationError
from ..recon.filters import transform_size
from ..recon.gridding import BATCH
from ..recon.inverse import half_bytes
from ..recon.kernel import KERNEL_WIDTH
from ..recon.preprocess import Preprocessing

logger = logging.getLogger(__name__)

_GIB = 1 << 30
# The interpreter with torch, numpy, tiled and what they load (measured: 0.45 to 0.6 GiB).
_LIBRARIES = 0.6 * _GIB
# What gridrec takes beside its tables, and the samples and slices that go through together: what is
# put in order at once while the tables are made; later, what each thread has at hand.
_AT_HAND, _AT_HAND_OF_EACH = 40 << 20, 3 << 20
# Float32 values for each value of a slab while it is corrected: the attenuation, what it is made
# from, and what a step makes of it (stripes and phase make copies).
_COPIES, _COPIES_OF_STEPS = 2, 4
_FLOAT = 4


@dataclass(frozen=True)
class MemoryPlan:
    """What a scan takes, in bytes, and how it is cut.

    Attributes
    ----------
    slab_rows : int
        Rows of a slab: those of the configuration, or fewer to keep to the bound.
    frames_bytes : int
        For frames that are read from files at once.
    parts : dict of str to int
        The prediction, by what takes it.
    """

    slab_rows: int
    frames_bytes: int
    parts: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Most memory at any time."""
        return sum(self.parts.values())

    @property
    def total_gib(self) -> float:
        """`total` in GiB."""
        return self.total / _GIB


def plan_memory(
    shape: tuple[int, int, int],
    dtype: np.dtype,
    n_flats: int,
    config: ReconstructionConfig,
    preprocess: Preprocessing,
    rows: tuple[int, int],
    bound_gib: float,
    *,
    n_columns: int,
    in_files: bool = True,
    n_denoised: int = 0,
) -> MemoryPlan:
    """Predict the memory of a scan, and cut it so that it keeps to a bound.

    Parameters
    ----------
    shape : tuple of int
        (angle, row, column), as recorded.
    dtype : numpy.dtype
        Of the frames.
    n_flats : int
        Flat fields that are kept, beside one dark field.
    config : ReconstructionConfig
    preprocess : Preprocessing
    rows : tuple of int
        Rows [first, last) of the binned detector that are reconstructed.
    bound_gib : float
        Without the frames that came inside events, which are in memory already.
    n_columns : int
        Of the slices.
    in_files : bool
        Whether frames are read when they are needed.
    n_denoised : int
        Volumes that a denoiser makes beside the reconstruction.

    Raises
    ------
    ConfigurationError
        Not even slabs of one row keep to the bound.
    """
    n_angles, n_rows, n_recorded = shape
    bound = int(bound_gib * _GIB)
    fields = 2 * _FLOAT * (1 + n_flats) * n_rows * n_recorded
    fixed = {
        "libraries": int(_LIBRARIES),
        "dark and flat fields": fields,
        "reconstruction": _reconstruction(config, n_angles, n_columns),
    }
    steps = config.preprocessing
    copies = _COPIES_OF_STEPS if steps.stripes or steps.phase or steps.full_turn else _COPIES
    volumes = 2 + n_denoised

    def of_slabs(slab_rows: int) -> tuple[int, int]:
        cuts = preprocess.cuts(*rows, slab_rows)
        recorded = [preprocess.recorded(*cut) for cut in cuts]
        most = max(last - first for first, last in recorded)
        frames = most * n_angles * n_recorded * dtype.itemsize
        corrected = copies * _FLOAT * (most // steps.binning) * n_angles * n_columns
        slices = volumes * _FLOAT * min(slab_rows, rows[1] - rows[0]) * n_columns**2
        # What is read from files is read as a block, from which a slab is copied.
        return frames, frames + corrected + slices

    slab_rows = config.slab_rows
    while True:
        frames, slabs = of_slabs(slab_rows)
        needed = sum(fixed.values()) + slabs + (frames if in_files else 0)
        if needed <= bound or slab_rows == 1:
            break
        slab_rows = max(1, slab_rows // 2)
    if needed > bound:
        parts = {**fixed, "a slab of one row": slabs + (frames if in_files else 0)}
        listed = ", ".join(f"{name} {size / _GIB:.2f}" for name, size in parts.items())
        raise ConfigurationError(
            f"scan.memory_gib: expected {shape} frames of {dtype} to be reconstructed within "
            f"{bound_gib:g} GiB, but they take {needed / _GIB:.2f} GiB at least ({listed}); allow "
            "more, or bin the frames with reconstruction.preprocessing.binning"
        )
    # Frames in files are read in blocks as large as the bound leaves room for.
    all_frames = (rows[1] - rows[0]) * steps.binning * n_angles * n_recorded * dtype.itemsize
    block = min(max(bound - sum(fixed.values()) - slabs, frames), all_frames) if in_files else 0
    parts = {**fixed, "slabs": slabs, "frames from files": block}
    plan = MemoryPlan(slab_rows, block + frames, parts)
    logger.debug("memory: %.2f GiB in slabs of %d rows: %s", plan.total_gib, slab_rows, parts)
    return plan


def _reconstruction(config: ReconstructionConfig, n_angles: int, n_columns: int) -> int:
    """What the reconstruction of any slab takes: its geometry, and room to work in.

    In torch; for TomoPy and ASTRA, which take less, it is an upper bound. The copies of sinograms,
    slices and grids that a method makes were counted in its code, and come out within a fifth of
    what it was seen to take.
    """
    size = transform_size(config.oversampling * n_columns)
    batch = BATCH["cpu"]
    cells, n_samples = size * (size // 2 + 3), n_angles * (size // 2 + 1)
    # Index and weight of each neighbour of each sample; and of each cell, where its own begin,
    # twice, and how many they are.
    table = 8 * KERNEL_WIDTH**2 * n_samples
    at_hand = max(_AT_HAND, 15 * cells, _AT_HAND_OF_EACH * torch.get_num_threads())
    grid, half = 8 * batch * cells, half_bytes(batch, n_columns, size)
    gridrec = table + 12 * cells + at_hand + 8 * batch * n_samples + half
    sinograms, slices = _FLOAT * batch * n_angles * n_columns, _FLOAT * batch * n_columns**2
    match config.method:
        case "fbp":  # copies on finer columns, and the pairs of pixels and angles at hand
            rows = min(config.slab_rows, 32)
            return 12 * sinograms * rows // batch + 100 * 2**20
        case "sirt":
            return gridrec + table + 5 * grid + 4 * sinograms + 4 * slices
        case "tv":
            return 2 * gridrec + table + 5 * grid + 8 * sinograms + 10 * slices
    return gridrec
