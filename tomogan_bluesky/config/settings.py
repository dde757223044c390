"""All settings of one scan, and who decides them: arguments, then the plan, then a profile."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field

from ..errors import ConfigurationError
from .base import Config, Rows, checked
from .denoising import DenoisingConfig
from .publishing import PublishingConfig
from .reconstruction import LiveConfig, ReconstructionConfig
from .scan import ScanConfig
from .worker import WorkerConfig


class PlanSettings(Config):
    """What a plan may say of its own scan, in ``md={"tomogan": {...}}``."""

    enabled: bool = True
    """False: the scan is left alone."""
    rows: Rows | None = None
    rotation_centre: float | None = None
    binning: int | None = Field(default=None, ge=1)


# Settings of publishing that decide the pixels.
_OF_THE_VOLUME = {"units", "pixel_size_um", "pixel_size_um_key"}
# Settings that say how this machine gets at the pixels, not which they are.
_OF_THIS_MACHINE = {"path_map", "allowed_roots", "file_wait_s", "memory_gib"}


class Settings(Config):
    """All settings of a callback that concern one scan."""

    scan: ScanConfig = ScanConfig()
    reconstruction: ReconstructionConfig = ReconstructionConfig()
    live: LiveConfig = LiveConfig()
    denoising: DenoisingConfig = DenoisingConfig()
    publishing: PublishingConfig = PublishingConfig()

    def for_plan(self, plan: PlanSettings, plan_wins: bool) -> Self:
        """These settings with those of a plan.

        Parameters
        ----------
        plan : PlanSettings
        plan_wins : bool
            Whether a plan's settings replace others than defaults.
        """
        scan, reconstruction = self.scan, self.reconstruction
        if plan.rows is not None and (plan_wins or scan.rows is None):
            scan = scan.model_copy(update={"rows": plan.rows})
        if plan.rotation_centre is not None and (
            plan_wins or reconstruction.rotation_centre is None
        ):
            reconstruction = reconstruction.model_copy(
                update={"rotation_centre": plan.rotation_centre}
            )
        binning = reconstruction.preprocessing.binning
        if plan.binning is not None and (plan_wins or binning == 1):
            preprocessing = reconstruction.preprocessing.model_copy(
                update={"binning": plan.binning}
            )
            reconstruction = reconstruction.model_copy(update={"preprocessing": preprocessing})
        return self.model_copy(update={"scan": scan, "reconstruction": reconstruction})

    def decisive(self) -> dict[str, Any]:
        """Everything, apart from the generator, that decides the pixels of a derived run."""
        return {
            "scan": self.scan.model_dump(mode="json", exclude=_OF_THIS_MACHINE),
            "reconstruction": self.reconstruction.model_dump(mode="json"),
            "denoising": self.denoising.model_dump(mode="json"),
            "publishing": self.publishing.model_dump(mode="json", include=_OF_THE_VOLUME),
        }

    def digest(self) -> str:
        """Hexadecimal sha256 of what is decisive: the same in any process.

        Of darks and flats in files it matters what they are, not where: see `References.sha256`.
        """
        decisive = self.decisive()
        if self.scan.reference_files is not None:
            decisive["scan"]["reference_files"] = "by their pixels"
        text = json.dumps(decisive, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class Profile(Settings):
    """The settings of a beamline: the content of ``profiles/<beamline>/tomogan.yml``."""

    version: Literal[1]
    model: str | None = "default"
    """Name or path of a model; "default": the one that ships with the package; null: none."""
    device: str = "auto"
    worker: WorkerConfig = WorkerConfig()


def load_profile(path: Path | str) -> Profile:
    """Read a profile.

    Raises
    ------
    ConfigurationError
        There is no such file, it is no YAML, or it holds a setting that is unknown or wrong.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: expected a profile in YAML, got: {error}") from error
    return checked(Profile, content, str(path))


def plan_settings(start_doc: Mapping[str, Any]) -> PlanSettings:
    """What the plan of a run says of it, under the start key ``tomogan``.

    Raises
    ------
    ConfigurationError
        A setting that is unknown or wrong.
    """
    return checked(PlanSettings, start_doc.get("tomogan") or {}, "start key 'tomogan'")
