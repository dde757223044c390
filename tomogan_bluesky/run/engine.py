"""What all runs of one callback share.

Enters: what the callback was made with. Leave: the generator, loaded once, the references of other
runs, and the publishers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..config import Settings
from ..denoise.denoiser import Denoiser, TorchScriptDenoiser
from ..denoise.turned import turned
from ..errors import ConfigurationError
from ..intake.reference_runs import ReferenceRuns
from ..models.files import registry_folder
from ..models.registry import Instrument, Registry
from ..publish.publishers import Publishers

Progress = Callable[[str, int, int], None]


@dataclass
class Engine:
    """Publishers, generator, settings.

    Attributes
    ----------
    publishers : Publishers
    model : str, Path, Denoiser or None
        A name or a path is loaded in the worker, at the first scan. ``registry:FOLDER`` is looked
        up for each run.
    settings : Settings
    plan_wins : bool
        Whether a plan's settings for its own scan replace these: they do where these come from a
        profile, and not where they are arguments.
    device : str
        "auto": the GPU where there is one.
    again : bool
        Compute a new attempt even where a successful derived run exists.
    progress : callable or None
        Called with the uid of the raw run, the slices done, and the slices in all.
    reference_runs : ReferenceRuns
    centres : dict of int to float
        The rotation centre that was last found beyond doubt, by the number of detector columns.
    """

    publishers: Publishers
    model: str | Path | Denoiser | None
    settings: Settings
    plan_wins: bool = False
    device: str = "auto"
    again: bool = False
    progress: Progress | None = None
    reference_runs: ReferenceRuns = field(init=False)
    centres: dict[int, float] = field(default_factory=dict)
    _current: Denoiser | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.reference_runs = ReferenceRuns(self.settings.scan, self.publishers.find_run)

    def resolved_device(self) -> str:
        """The device itself: never "auto".

        Raises
        ------
        ConfigurationError
            A GPU is asked for, and there is none.
        """
        has_gpu = torch.cuda.is_available()
        if self.device == "auto":
            return "cuda" if has_gpu else "cpu"
        if self.device.startswith("cuda") and not has_gpu:
            raise ConfigurationError(
                f"device: expected a GPU that torch can use, as {self.device!r} asks for, got "
                "none; set device to 'auto' or 'cpu', or see what nvidia-smi says"
            )
        return self.device

    def denoiser(
        self, start_doc: Mapping[str, Any] | None = None, settings: Settings | None = None
    ) -> Denoiser | None:
        """The generator, loaded once; a load that failed is tried again at the next scan.

        Of a registry, it is the one that is used for the run's instrument now: where another one
        has come into use since the last run, it is loaded, and the last one forgotten.

        Parameters
        ----------
        start_doc : mapping, optional
            Of the run; None: it is not known yet.
        settings : Settings, optional
            Of the run; None: those of all runs.

        Raises
        ------
        ModelNotFoundError, ModelError
        """
        if (folder := registry_folder(self.model)) is not None:
            return self._registered(folder, start_doc, settings or self.settings)
        if isinstance(self.model, str | Path):
            self.model = self._load(self.model)
        return self.model

    def _registered(
        self, folder: Path, start_doc: Mapping[str, Any] | None, settings: Settings
    ) -> Denoiser | None:
        if start_doc is None:
            return None
        instrument = Instrument.of_run(start_doc, settings.reconstruction)
        path, sha256 = Registry(folder).resolve(instrument)
        if self._current is None or self._current.sha256 != sha256:
            self._current = self._load(path, sha256)
        return self._current

    def _load(self, path_or_name: Path | str, sha256: str | None = None) -> Denoiser:
        settings = self.settings.denoising
        denoiser = TorchScriptDenoiser(
            path_or_name, self.resolved_device(), settings.noise, settings.tile, sha256
        )
        return turned(denoiser, settings.sides)
