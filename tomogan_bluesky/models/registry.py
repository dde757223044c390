"""A folder of models, each for one instrument: which one is used now, and which were before.

Enter: model files, and what is known of an instrument. Leave: the file that a scan of that
instrument is denoised with, and its sha256. The index, ``registry.json``, is the list of what may
be loaded: model files are code, and one that the index does not know is none.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ..config import FilterName, ReconstructionConfig
from ..errors import ModelError, ModelNotFoundError, TomoGANError
from ..recon.filters import is_smoother
from .artifact import load_model
from .card import ModelCard
from .files import read_file, suffix

INDEX = "registry.json"
_ALIKE = 0.01  # relative difference of two numbers that are the same setting

# Start keys by which facilities tell what an instrument is, the first that is there counts.
_START_KEYS: Mapping[str, tuple[str, ...]] = {
    "beamline": ("beamline_id", "beamline"),
    "energy_kev": ("energy_kev", "energy_keV", "beam_energy"),
    "detector": ("detector_name", "detector", "detectors"),
    "pixel_size_um": ("pixel_size_um", "pixel_size"),
    "exposure_s": ("exposure_s", "exposure_time"),
}


class Instrument(BaseModel):
    """What decides how slices look: the fingerprint by which models are kept.

    A setting that is None is not known of a scan; of a model, it fits any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    beamline: str | None = None
    energy_kev: float | None = None
    detector: str | None = None
    pixel_size_um: float | None = None
    exposure_s: float | None = None
    method: str | None = None
    """Of the reconstruction."""
    filter: FilterName | None = None

    @classmethod
    def of_run(
        cls, start_doc: Mapping[str, Any], reconstruction: ReconstructionConfig
    ) -> "Instrument":
        """What the start document of a run and its reconstruction say."""
        found: dict[str, Any] = {
            "method": reconstruction.method,
            "filter": reconstruction.filter,
        }
        for name, keys in _START_KEYS.items():
            value = next((start_doc[key] for key in keys if start_doc.get(key)), None)
            if isinstance(value, list | tuple):
                value = value[0]
            wanted = str if name in ("beamline", "detector") else (int, float)
            if isinstance(value, wanted):
                found[name] = value
        return cls(**found)

    @property
    def fingerprint(self) -> str:
        """Names the instrument in a registry."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def fits(self, scan: "Instrument") -> int | None:
        """How many settings of a model's instrument a scan shares; None: one of them differs.

        A filter that is smoother than the model's does not differ, and is not shared.
        """
        shared = 0
        for name, wanted in self:
            if wanted is None:
                continue
            there = getattr(scan, name)
            if isinstance(wanted, float) and isinstance(there, float):
                same = abs(there - wanted) <= _ALIKE * abs(wanted)
            else:
                same = there == wanted
            if same:
                shared += 1
            elif name != "filter" or there is None or not is_smoother(there, wanted):
                return None
        return shared

    def __str__(self) -> str:
        known = [f"{name}={value}" for name, value in self if value is not None]
        return ", ".join(known) or "any"


class Promotion(BaseModel):
    """A model that came into use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    """Of its file, ``<sha256><suffix>``."""
    suffix: str
    name: str
    """On its card."""
    promoted: datetime


class Slot(BaseModel):
    """An instrument's models in the order in which they came into use; the last one is used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instrument: Instrument
    history: tuple[Promotion, ...]


class _Index(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    slots: dict[str, Slot] = {}


class Registry:
    """The models in a folder.

    Parameters
    ----------
    folder : path
        Made when the first model is promoted.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def slots(self) -> dict[str, Slot]:
        """All instruments, by fingerprint.

        Raises
        ------
        ModelNotFoundError
            There is no registry.
        ModelError
            Its index is not one of this version.
        """
        return dict(self._read().slots)

    def find(self, prefix: str) -> Slot:
        """The slot of a fingerprint, or of its unique beginning.

        Raises
        ------
        ModelNotFoundError
            None, or several.
        """
        slots = self.slots()
        found = [key for key in slots if key.startswith(prefix)]
        if len(found) != 1:
            raise ModelNotFoundError(
                f"{self.folder}: expected the beginning of one fingerprint, got {prefix!r}, which "
                f"fits {len(found)}; there are {', '.join(slots) or 'none'}"
            )
        return slots[found[0]]

    def resolve(self, scan: Instrument) -> tuple[Path, str]:
        """File and sha256 of the model for a scan: of those that fit, that of most settings.

        Raises
        ------
        ModelNotFoundError
            No model fits, or two do equally well. Says what there is.
        """
        fitting: dict[int, list[Slot]] = {}
        slots = self.slots()
        for slot in slots.values():
            if (shared := slot.instrument.fits(scan)) is not None:
                fitting.setdefault(shared, []).append(slot)
        best = fitting[max(fitting)] if fitting else []
        if len(best) != 1:
            there = "; ".join(str(slot.instrument) for slot in best or slots.values())
            raise ModelNotFoundError(
                f"{self.folder}: expected one model that fits {scan}; there are "
                f"{len(best)} that do: {there or 'none'}; promote one for this instrument, or say "
                "more of it in the start document"
            )
        current = best[0].history[-1]
        return self.path(current), current.sha256

    def path(self, promotion: Promotion) -> Path:
        """Where a model's file is."""
        return self.folder / f"{promotion.sha256}{promotion.suffix}"

    def promote(self, model: Path | str, instrument: Instrument) -> Slot:
        """Use a model for an instrument from now on; its file is copied.

        Parameters
        ----------
        model : path or str
            A model file, or the name of a shipped model.
        instrument : Instrument

        Raises
        ------
        ModelNotFoundError, ModelError
            No such file; one that can't be loaded; one that was trained on slices of another
            reconstruction than the instrument's; a folder that can't be written.
        """
        _, card = load_model(model)
        for name in ("method", "filter"):
            wanted, trained = getattr(instrument, name), getattr(card.reconstruction, name)
            if wanted not in (None, trained):
                raise ModelError(
                    f"{model}: expected a model that was trained on slices of {name} {wanted!r}, "
                    f"got one of {trained!r}"
                )
        content = read_file(model)
        sha256 = hashlib.sha256(content).hexdigest()
        promotion = Promotion(
            sha256=sha256, suffix=suffix(model), name=card.name, promoted=datetime.now(UTC)
        )
        with self._changing() as slots:
            partial = self.folder / f".{sha256}.{os.getpid()}"
            partial.write_bytes(content)
            partial.replace(self.path(promotion))
            before = slots.get(instrument.fingerprint)
            history = before.history if before else ()
            slot = Slot(instrument=instrument, history=(*history, promotion))
            slots[instrument.fingerprint] = slot
        return slot

    def rollback(self, prefix: str) -> Slot:
        """Go back to the model that an instrument had before.

        Raises
        ------
        ModelNotFoundError
            No such instrument, or none before.
        """
        fingerprint = self.find(prefix).instrument.fingerprint
        with self._changing() as slots:
            slot = slots[fingerprint]
            if len(slot.history) < 2:
                raise ModelNotFoundError(
                    f"{self.folder}: {fingerprint} has had one model alone: there is none to go "
                    "back to"
                )
            slots[fingerprint] = slot.model_copy(update={"history": slot.history[:-1]})
        return slots[fingerprint]

    def verify(self) -> dict[str, str | None]:
        """What is wrong with each model that is in use, by fingerprint; None: nothing."""
        found: dict[str, str | None] = {}
        for fingerprint, slot in self.slots().items():
            try:
                self.card(slot.history[-1])
                found[fingerprint] = None
            except ModelError as error:
                found[fingerprint] = str(error)
        return found

    def card(self, promotion: Promotion) -> ModelCard:
        """The card of a model, which is loaded for it, as it would be for a scan.

        Raises
        ------
        ModelNotFoundError, ModelError
            The file is gone, or is not what it was.
        """
        return load_model(self.path(promotion), sha256=promotion.sha256)[1]

    def _read(self) -> _Index:
        path = self.folder / INDEX
        try:
            return _Index.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise ModelNotFoundError(
                f"no registry in {self.folder}: promote a model into it first, with "
                "tomogan-bluesky models promote"
            ) from None
        except (OSError, ValidationError) as error:
            raise ModelError(f"{path}: this index can't be used: {error}") from error

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Slot]]:
        """The slots, to be changed by one process at a time."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / ".lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                there = (self.folder / INDEX).exists()
                slots = dict(self._read().slots) if there else {}
                yield slots
                partial = self.folder / f"{INDEX}.partial"
                partial.write_text(_Index(slots=slots).model_dump_json(indent=1))
                partial.replace(self.folder / INDEX)
        except TomoGANError:
            raise  # some of them are OSErrors, too
        except OSError as error:
            raise ModelError(
                f"{self.folder}: expected the folder of a registry, got: {error}; name one that "
                "can be made and written, and see that the disk is not full"
            ) from error
