"""Reconstruction of a scan while it is taken.

Enter: the frames of a scan as its documents announce them. Leave: previews at any time, and after
the last projection a reconstruction that lacks only its last step, with the bits that one of the
whole scan has. Where a scan does not allow that, it says why, and the whole scan is reconstructed
in the end: whatever is wrong here costs time, never slices, and is found and reported again there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch

from ..config import Settings
from ..errors import ReconstructionError
from ..geometry import ScanGeometry
from ..intake.documents import Frame, ScanDocuments
from ..intake.frame_store import FrameStore
from ..intake.frames import read_rows
from ..intake.references import References
from ..intake.scan import Scan
from ..pipeline.slabs import rows_within
from ..recon.incremental import IncrementalGridrec, state_bytes
from ..recon.preprocess import Fields, Preprocessing

logger = logging.getLogger(__name__)

_GIB = 1 << 30
# Frames that are announced and not in their file yet, or never will be, that are asked for again
# with each document.
_MOST_ABSENT = 16
# A step that differs by less from one that divides half a turn, or a whole one, is that: encoders
# jitter, and plans go over round angles.
_SAME_STEP = 0.02


class LiveScan:
    """What is known and reconstructed of one scan so far.

    Parameters
    ----------
    settings : Settings
    store : FrameStore
    documents : ScanDocuments
        Of the run.
    references : callable
        Gives the darks and flats as far as they are known, or None.
    centre : callable
        Takes the number of detector columns, gives that of the rotation axis in earlier scans, or
        None. Previews use it where none is given.
    device : callable
        Gives the device to reconstruct on.

    Attributes
    ----------
    why_not : str
        Why the whole scan is to be reconstructed in the end; empty as long as it need not.
    preview_rows : list of int
        Rows of the binned detector that `preview` shows; empty before the first projection.
    """

    def __init__(
        self,
        settings: Settings,
        store: FrameStore,
        documents: ScanDocuments,
        references: Callable[[], References | None],
        centre: Callable[[int], float | None],
        device: Callable[[], str],
    ) -> None:
        self._settings = settings
        self._store = store
        self._documents = documents
        self._find_references = references
        self._centre = settings.reconstruction.rotation_centre
        self._centre_before = centre
        self._find_device = device
        self._pending: dict[int, None] = {}
        self._may_begin = False
        self._used: dict[int, Frame] = {}
        self._theta: dict[int, float] = {}
        self._clamped: dict[int, int] = {}
        self._rows: list[tuple[int, int]] = []
        # Known once it has begun.
        self._gridded: IncrementalGridrec | None = None
        self._references: References
        self._preprocess: Preprocessing
        self.preview_rows: list[int] = []
        self.why_not = self._why_never()
        self._given_up = bool(self.why_not) and not self._previews_are_possible()

    # What a configuration allows ---------------------------------------------------------------

    def _why_never(self) -> str:
        """Why the settings rule the early reconstruction out, if they do."""
        config = self._settings.reconstruction
        steps = config.preprocessing
        if not self._settings.live.incremental:
            return "it is switched off in live.incremental"
        if (config.backend, config.method) != ("torch", "gridrec"):
            return f"{config.method} of the {config.backend} backend takes whole sinograms"
        if steps.stripes is not None or steps.full_turn:
            return "removing stripes, and stitching a full turn, take whole sinograms"
        if config.rotation_centre is None:
            return "the rotation centre is found from the whole scan; give it, to be faster"
        return ""

    def _previews_are_possible(self) -> bool:
        config = self._settings.reconstruction
        return (
            self._settings.live.previews
            and (config.backend, config.method) == ("torch", "gridrec")
            and not config.preprocessing.full_turn
        )

    # While the scan is taken -------------------------------------------------------------------

    def arrived(self, frame: Frame) -> None:
        """Learn of a frame."""
        if frame.kind == "projection":
            self._pending[frame.number] = None
            # Darks and flats are complete when projections follow; not while they come themselves.
            self._may_begin = True

    def advance(self) -> None:
        """Reconstruct what has arrived and can be read by now. Raises nothing."""
        if self._given_up or not self._pending:
            return
        try:
            if self._gridded is None and self._may_begin:
                self._may_begin = False
                self._begin()
            if self._gridded is not None:
                n_absent = 0
                for number in list(self._pending):
                    n_absent += not self._take(number)
                    if n_absent > _MOST_ABSENT or self._gridded is None:
                        break
        except Exception as error:
            self._give_up(f"{type(error).__name__}: {error}")

    @property
    def n_arrived(self) -> int:
        """Projections that are in the reconstruction."""
        return 0 if self._gridded is None else int(self._gridded.arrived.sum())

    def recorded_row(self, row: int) -> int:
        """The first of the recorded rows that a row is made of."""
        return row * self._settings.reconstruction.preprocessing.binning

    def preview(self) -> tuple[torch.Tensor, float]:
        """Slices of `preview_rows` from what has arrived, in 1/pixel, and the centre used.

        Raises
        ------
        ReconstructionError
            Nothing has arrived.
        """
        if self._gridded is None or self._centre is None:
            raise ReconstructionError("preview: expected projections, but none has arrived yet")
        rows = [row for first, last in self._rows for row in range(first, last)]
        slices = [rows.index(row) for row in self.preview_rows]
        return self._gridded.preview(slices), self._centre

    def result(self, scan: Scan, geometry: ScanGeometry) -> IncrementalGridrec | None:
        """The reconstruction of the whole scan, if this is one; else `why_not` says why.

        Parameters
        ----------
        scan : Scan
            As it is known in the end.
        geometry : ScanGeometry
            Of the recorded frames.
        """
        self.advance()
        if not self.why_not:
            self.why_not = self._why_not_this(scan, geometry)
        if self.why_not:
            self._gridded = None  # its memory is needed for the whole scan
        return self._gridded

    @property
    def n_clamped(self) -> int:
        """Transmissions that were raised to the smallest allowed one before the logarithm."""
        return sum(self._clamped.values())

    # Details -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Make ready for projections, once enough is known of the scan."""
        n_angles = self._documents.declared_projections
        if n_angles is None or n_angles < 2:
            self._give_up(
                "the start document does not say how many projections there will be, in "
                "num_projections or num_points"
            )
            return
        theta = self._expected_angles(n_angles)
        references = None if theta is None else self._find_references()
        if theta is None or references is None:
            return
        if len(references.flats) > 1:
            self._give_up("the flats drift, and depend on those that are taken later")
            return
        n_rows, n_columns = references.dark.shape
        if self._centre is None:
            self._centre = self._centre_before(n_columns)
        if self._centre is None:
            self._give_up(self.why_not)
            return
        self._references = references
        config = self._settings.reconstruction
        fields = Fields(references.dark, references.flats, np.ones((n_angles, 1), np.float32))
        # A preview may show stripes that the slices will not have.
        steps = config.preprocessing.model_copy(update={"stripes": None})
        device = self._find_device()
        self._preprocess = Preprocessing(steps, fields, config.minimum_transmission, device)
        recorded = ScanGeometry(theta, self._centre, n_columns)
        geometry = self._preprocess.geometry(recorded)
        rows = rows_within(self._settings.scan.rows, n_rows)
        first, last = self._preprocess.rows_within(*rows)
        binning = steps.binning
        wanted = [row // binning for row in self._settings.live.preview_rows]
        wanted = [row for row in wanted if first <= row < last] or [(first + last - 1) // 2]
        self.preview_rows = sorted(set(wanted))
        if not self.why_not and (needed := self._memory(geometry, last - first)) > (
            self._settings.live.memory_gib * _GIB
        ):
            self.why_not = (
                f"it would take {needed / _GIB:.3g} GiB, and live.memory_gib allows "
                f"{self._settings.live.memory_gib:g}"
            )
            self._given_up = not self._previews_are_possible()
        if self._given_up:
            return
        self._rows = (
            [(row, row + 1) for row in self.preview_rows]
            if self.why_not
            else self._preprocess.cuts(first, last, last - first)
        )
        self._gridded = IncrementalGridrec(
            geometry,
            sum(last - first for first, last in self._rows),
            config.filter,
            config.oversampling,
            device,
            retained=self._again,
        )

    def _memory(self, geometry: ScanGeometry, n_slices: int) -> int:
        """Bytes, at worst: the grids, and all projections waiting for the first of their block."""
        oversampling = self._settings.reconstruction.oversampling
        waiting = 4 * geometry.n_angles * geometry.n_columns
        return n_slices * (state_bytes(geometry, oversampling) + waiting)

    def _expected_angles(self, n_angles: int) -> np.ndarray | None:
        """Angles of the whole scan: all as they are, or evenly on from the first two known."""
        if self._documents.angles.listed:
            listed = [self._angle(number) for number in range(1, n_angles + 1)]
            return None if None in listed else np.array(listed, dtype=np.float64)
        known = {
            number: theta
            for number in sorted(self._pending)[:2]
            if (theta := self._angle(number)) is not None
        }
        if len(known) < 2:
            return None
        (a, theta_a), (b, theta_b) = known.items()
        step = (theta_b - theta_a) / (b - a)
        turns = [m * np.pi / n for m in (1, 2) for n in (n_angles, n_angles - 1)]
        round_step = min(turns, key=lambda turn: abs(abs(step) - turn))
        if abs(abs(step) - round_step) < _SAME_STEP * round_step:
            step = float(np.copysign(round_step, step))
        # Over many turns, as by the golden ratio, what a projection shows repeats with each.
        return np.mod(theta_a + step * (np.arange(n_angles) + 1 - a), 2 * np.pi)

    def _angle(self, number: int) -> float | None:
        documents = self._documents
        return documents.angles.early(number, documents.declared_projections)

    def _take(self, number: int) -> bool:
        """Add a projection, or put it in the place of one that it supersedes; False: not yet."""
        assert self._gridded is not None
        index = number - 1
        frame, theta = self._store.early(number), self._angle(number)
        if frame is None or theta is None:
            return False
        if index >= len(self._gridded.arrived):
            self._give_up(f"projection {number} is one more than the start document promised")
            return False
        attenuation, clamped = self._attenuation([index], [frame])
        change = self._gridded.replace if number in self._used else self._gridded.add
        change(index, attenuation[:, 0], theta)
        del self._pending[number]
        self._used[number], self._theta[number], self._clamped[number] = frame, theta, clamped
        return True

    def _again(self, projections: slice) -> torch.Tensor:
        """Attenuation of projections that have been used, for blocks that are gridded again."""
        indices = list(range(projections.start, projections.stop))
        return self._attenuation(indices, [self._used[index + 1] for index in indices])[0]

    def _attenuation(self, indices: list[int], frames: list[Frame]) -> tuple[torch.Tensor, int]:
        """Line integrals (slice, projection, column) of all rows that are reconstructed."""
        parts, n_clamped = [], 0
        recorded = [self._preprocess.recorded(*rows) for rows in self._rows]
        start = min(first for first, _ in recorded)
        stop = max(last for _, last in recorded)
        pixels = read_rows([frame.pixels for frame in frames], slice(start, stop)).swapaxes(0, 1)
        for rows, (first, last) in zip(self._rows, recorded, strict=True):
            part = pixels[first - start : last - start]
            attenuation, clamped = self._preprocess(part, *rows, angles=indices)
            parts.append(attenuation)
            n_clamped += clamped
        return torch.cat(parts), n_clamped

    def _give_up(self, why: str) -> None:
        if not self.why_not:
            self.why_not = why
        self._given_up = True
        self._gridded = None  # its memory is needed for the whole scan

    def _why_not_this(self, scan: Scan, geometry: ScanGeometry) -> str:
        """How the finished scan differs from what was expected; empty where it does not."""
        if self._gridded is None:
            return "darks, flats or angles were not known before the last projections came"
        n_angles, n_used = len(self._gridded.arrived), len(scan.projections)
        if n_used != n_angles or len(self._used) != n_angles:
            return f"{n_angles} projections were promised, and {n_used} can be used"
        used = [self._used[number + 1].pixels for number in range(n_angles)]
        theta = np.array([self._theta[number + 1] for number in range(n_angles)])
        if any(a is not b for a, b in zip(used, scan.projections, strict=True)):
            return "projections were taken again at last"
        if not np.array_equal(theta, scan.theta) or geometry.rotation_centre != self._centre:
            return "the geometry is another than was known while the scan was taken"
        mine, final = self._references, scan.references
        if not np.array_equal(mine.dark, final.dark) or not np.array_equal(mine.flats, final.flats):
            return "darks or flats came after the first projections"
        return self._gridded.why_incomplete()
