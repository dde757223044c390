"""What all runs of one callback share.

Enters: what the callback was made with. Leave: the generator, loaded once, the references of other
runs, and the publishers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .config import Settings
from .denoise import Denoiser, TorchScriptDenoiser
from .publish.publishers import Publishers
from .reference_runs import ReferenceRuns

Progress = Callable[[str, int, int], None]


@dataclass
class Engine:
    """Publishers, generator, settings.

    Attributes
    ----------
    publishers : Publishers
    model : str, Path, Denoiser or None
        A name or a path is loaded in the worker, at the first scan.
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

    def __post_init__(self) -> None:
        self.reference_runs = ReferenceRuns(self.settings.scan, self.publishers.find_run)

    def resolved_device(self) -> str:
        """The device itself: never "auto"."""
        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return self.device

    def denoiser(self) -> Denoiser | None:
        """The generator, loaded once; a load that failed is tried again at the next scan.

        Raises
        ------
        ModelNotFoundError, ModelError
        """
        if isinstance(self.model, str | Path):
            denoising = self.settings.denoising
            self.model = TorchScriptDenoiser(
                self.model, self.resolved_device(), denoising.noise, denoising.tile
            )
        return self.model
