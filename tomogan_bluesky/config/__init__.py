"""Settings of one callback: what is read, how it is reconstructed, denoised and published.

All are frozen and refuse unknown names, so that a typing error in a profile is an error and not a
default. `None` means "infer it from the documents, and raise with the candidates if that is
ambiguous". Units stand in the names.
"""

from .base import Rows, checked
from .denoising import DEFAULT_MODEL, DenoisingConfig
from .preprocessing import (
    AllStripes,
    PhaseConfig,
    PreprocessingConfig,
    SortingStripes,
    TomopyStripes,
    WaveletStripes,
)
from .publishing import PER_PIXEL, PublishingConfig, Scale
from .reconstruction import METHODS, CentreMethod, FilterName, LiveConfig, ReconstructionConfig
from .scan import ReferenceFiles, ScanConfig, StoredFrames
from .settings import PlanSettings, Profile, Settings, load_profile, plan_settings
from .worker import WorkerConfig

__all__ = [
    "DEFAULT_MODEL",
    "METHODS",
    "PER_PIXEL",
    "AllStripes",
    "CentreMethod",
    "DenoisingConfig",
    "FilterName",
    "LiveConfig",
    "PhaseConfig",
    "PlanSettings",
    "PreprocessingConfig",
    "Profile",
    "PublishingConfig",
    "ReconstructionConfig",
    "ReferenceFiles",
    "Rows",
    "Scale",
    "ScanConfig",
    "Settings",
    "SortingStripes",
    "StoredFrames",
    "TomopyStripes",
    "WaveletStripes",
    "WorkerConfig",
    "checked",
    "load_profile",
    "plan_settings",
]
