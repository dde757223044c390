"""Settings of one callback: what is read, how it is reconstructed, denoised and published.

All are frozen and refuse unknown names, so that a typing error in a profile is an error and not a
default. `None` means "infer it from the documents, and raise with the candidates if that is
ambiguous". Units stand in the names.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ConfigurationError

Model = TypeVar("Model", bound=BaseModel)

DEFAULT_MODEL = "unet4-simulated-v2"
"""Name of the model that ships with the package."""

FilterName = Literal[
    "ramlak", "shepp", "cosine", "hann", "hamming", "parzen", "butterworth", "none"
]
CentreMethod = Literal["pair", "wedge", "centroid"]

METHODS = {
    "torch": ("gridrec", "fbp", "sirt", "tv"),
    "tomopy": ("gridrec", "fbp"),
    "astra": ("fbp", "sirt"),
}
"""Reconstruction methods of each backend."""


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _in_order(rows: tuple[int, int]) -> tuple[int, int]:
    if not 0 <= rows[0] < rows[1]:
        raise ValueError(f"expected 0 <= first < last (last not included), got {rows}")
    return rows


Rows = Annotated[tuple[int, int], AfterValidator(_in_order)]
"""Detector rows [first, last)."""


class StoredFrames(_Config):
    """Frames in files that the documents of a scan do not refer to."""

    path: str
    """An HDF5 file, or TIFF files with ``*`` in their name; it may name keys of the start document,
    as in ``/data/{data_session}/flats.h5``."""
    dataset: str | None = None
    """In an HDF5 file; None: where Data Exchange or NXtomo have such frames."""


class ReferenceFiles(_Config):
    """Darks and flats in files."""

    darks: StoredFrames
    flats: StoredFrames


class ScanConfig(_Config):
    """Where the frames and the angles of a scan are found in its documents."""

    image_key: str | None = None
    """Data key of the detector frames; None: the only two-dimensional array of the stream."""
    angle_key: str | None = None
    """Data key of the rotation angle; None: the only data key with an angular unit."""
    angle_units: Literal["deg", "rad"] | None = None
    """Units of the angle; None: those that the data key names."""
    angle_stream: str | None = None
    """Monitor stream of the angle, interpolated at the frames' times; None: a stream whose name
    ends in "_monitor" with an angular unit, where the projections' own stream has no angle."""
    frame_time_key: str | None = None
    """Data key with the time of each frame (seconds since 1970), where one event holds many."""
    start_angles: tuple[str] | tuple[str, str] | None = None
    """Key of the start document with the list of angles, or the two keys of the first and the last
    angle, both taken, between which the projections are spread evenly."""
    projection_streams: tuple[str, ...] = ("primary", "tomo", "projections", "projection")
    dark_streams: tuple[str, ...] = ("dark", "darks")
    flat_streams: tuple[str, ...] = ("flat", "flats", "white", "whites")
    flat: Literal["frames", "none"] = "frames"
    """"none": the frames are transmissions already, and need neither darks nor flats."""
    flat_drift: Literal["mean", "linear"] = "mean"
    """Flats of several times: their mean, or interpolated linearly between them in time."""
    references_run_key: str | None = None
    """Key of the start document with the uid of the run that holds the darks and flats."""
    reference_files: ReferenceFiles | None = None
    """Darks and flats for scans that have none of their own and name no run that has."""
    path_map: tuple[tuple[str, str], ...] = ()
    """Beginnings of paths as the documents have them, and what they are on this machine."""
    allowed_roots: tuple[Path, ...] | None = None
    """Folders that raw data may be read from; None: any."""
    first_file_number: int = 0
    """Number in the name of the first TIFF file of a sequence, where the documents count from 0."""
    file_wait_s: float = Field(default=10.0, ge=0.0)
    """Seconds to wait for a file, or for frames in it, that the documents promise."""
    memory_gib: float = Field(default=4.0, gt=0.0)
    """Most memory to reconstruct a scan in, in the end, without the frames that came inside events:
    frames are read, and slabs are cut, so that it is kept to. See also live.memory_gib."""
    rows: Rows | None = None
    """Detector rows [first, last) to reconstruct; None: all."""


class SortingStripes(_Config):
    """Stripes removed by comparing sorted columns (Vo 2018, algorithm 3)."""

    method: Literal["sorting"]
    size: int | None = Field(default=None, ge=1)
    """Columns of the median's window; None: 1 % of the columns, from 5 to 21."""


class WaveletStripes(_Config):
    """Stripes removed in wavelet and Fourier space (Münch 2009)."""

    method: Literal["wavelet"]
    level: int | None = Field(default=None, ge=1)
    """Number of bands; None: all, which takes away broad shapes too."""
    wavelet: str = "db5"
    sigma: float = Field(default=2.0, gt=0.0)


class AllStripes(_Config):
    """Dead, fluctuating, large and small stripes removed (Vo 2018, algorithms 6, 5, 3)."""

    method: Literal["all"]
    snr: float = Field(default=3.0, gt=0.0)
    large_size: int = Field(default=61, ge=1)
    small_size: int = Field(default=21, ge=1)


class TomopyStripes(_Config):
    """Stripes removed by one of TomoPy's own functions, where TomoPy is installed."""

    method: Literal["tomopy"]
    function: Literal[
        "remove_stripe_fw",
        "remove_stripe_ti",
        "remove_stripe_sf",
        "remove_stripe_based_sorting",
        "remove_stripe_based_filtering",
        "remove_stripe_based_fitting",
        "remove_stripe_based_interpolation",
        "remove_dead_stripe",
        "remove_large_stripe",
        "remove_all_stripe",
    ]
    options: dict[str, bool | int | float | str] = {}
    """Its arguments by name; those that are left out have TomoPy's defaults."""


class PhaseConfig(_Config):
    """Paganin's phase retrieval, for a sample of one material at one distance."""

    pixel_size_um: float = Field(gt=0.0)
    """Of the recorded frames, as seen in the sample."""
    distance_mm: float = Field(gt=0.0)
    """From the sample to the detector."""
    energy_kev: float = Field(gt=0.0)
    alpha: float = Field(default=1e-3, gt=0.0)
    """In TomoPy's convention; smaller is smoother."""


class PreprocessingConfig(_Config):
    """What is done to the frames before the logarithm, and in which order: zingers, binning, dark
    and flat fields, stripes, phase. All but dark and flat fields is off by default."""

    zinger_difference: float | None = Field(default=None, gt=0.0)
    """Pixels brighter than the median around them by this, in the frames' units, are replaced by
    it; None: none."""
    zinger_size: int = Field(default=3, ge=3)
    """Odd width and height of the median's window."""
    binning: int = Field(default=1, ge=1)
    """Squares of so many rows and columns become one pixel. Rows and the rotation centre are given
    in recorded pixels all the same; slices are in 1/(binned pixel)."""
    stripes: SortingStripes | WaveletStripes | AllStripes | TomopyStripes | None = Field(
        default=None, discriminator="method"
    )
    phase: PhaseConfig | None = None
    axis_tilt_deg: float = 0.0
    """Angle of the rotation axis to the columns of the detector, positive where the centre moves to
    higher columns with the row. The rotation centre is that of the middle row; the others are
    shifted."""
    full_turn: bool = False
    """Whether the scan is over 360° with the axis near the edge of the detector, and is to become
    one of half a turn and nearly twice the width."""

    @model_validator(mode="after")
    def _odd_window(self) -> Self:
        if self.zinger_size % 2 == 0:
            raise ValueError(f"zinger_size: expected an odd number, got {self.zinger_size}")
        return self


class ReconstructionConfig(_Config):
    """From recorded frames to slices in 1/pixel."""

    preprocessing: PreprocessingConfig = PreprocessingConfig()

    backend: Literal["torch", "tomopy", "astra"] = "torch"
    """Which has which methods: see `METHODS`."""
    method: Literal["gridrec", "fbp", "sirt", "tv"] = "gridrec"
    filter: FilterName = "ramlak"
    """Of `gridrec` and `fbp`."""
    iterations: int = Field(default=100, ge=1)
    """Of `sirt` and `tv`."""
    tv_strength: float = Field(default=1.0, gt=0.0)
    """How much edges cost in `tv`, in units of the noise of the projections, which is estimated for
    each slice."""
    rotation_centre: float | None = None
    """Detector column of the axis, 0.0 being the centre of column 0; None: found from the
    projections."""
    rotation_centre_method: Literal["auto"] | CentreMethod = "auto"
    """How it is found: from a 0°/180° pair, from the double wedge of the sinogram's transform (Vo
    2014), or from the centre of mass. "auto" asks all three and tells how far they agree."""
    oversampling: float = Field(default=1.5, ge=1.25, le=4.0)
    """Size of the Fourier grid in image widths, of all torch methods but `fbp`."""
    minimum_transmission: float = Field(default=1e-6, gt=0.0, lt=1.0)
    """Transmissions below are raised to it before the logarithm, and counted."""
    slab_rows: int = Field(default=8, ge=1)
    """Detector rows that are reconstructed, denoised and published together."""

    @model_validator(mode="after")
    def _method_of_backend(self) -> Self:
        if self.method not in METHODS[self.backend]:
            raise ValueError(
                f"method: expected one that the backend {self.backend!r} has "
                f"({', '.join(METHODS[self.backend])}), got {self.method!r}; the backend 'torch' "
                "has all"
            )
        return self


class LiveConfig(_Config):
    """What is done while a scan is taken. It changes when slices are there, and not their bits."""

    incremental: bool = True
    """Reconstruct projections as they come, where that gives the slices of the whole scan: with
    `gridrec` of the torch backend, a given rotation centre, and darks and flats before the
    projections."""
    preview_every: int | None = Field(default=None, ge=1)
    """Projections from one preview to the next; None: only time decides."""
    preview_every_s: float | None = Field(default=10.0, gt=0.0)
    """Seconds from one preview to the next; None: only the number of projections decides. Previews
    are left out when the work does not keep up with the scan."""
    preview_rows: tuple[int, ...] = ()
    """Detector rows that are previewed; empty: the middle one."""
    memory_gib: float = Field(default=4.0, gt=0.0)
    """Most memory for what is reconstructed while the scan is taken."""

    @property
    def previews(self) -> bool:
        """Whether there are any."""
        return self.preview_every is not None or self.preview_every_s is not None


class DenoisingConfig(_Config):
    """From noisy slices to denoised ones."""

    noise: float | None = Field(default=None, ge=0.0)
    """Standard deviation of the noise in 1/pixel; None: estimated for each slice."""
    tile: int | None = Field(default=None, ge=64)
    """Width in pixels of the tiles that wider slices are denoised by, a multiple of 16: smaller
    ones need less memory and more time. None: 2048."""
    on_mismatch: Literal["remark", "refuse"] = "remark"
    """Where the model was trained on slices that were reconstructed in another way: denoise, and
    say so in the derived run; or fail the run and publish the reconstruction alone."""


class Scale(NamedTuple):
    """Units of published slices, and what slices in 1/pixel are multiplied by to get there."""

    units: str
    factor: float


PER_PIXEL = Scale("1/pixel", 1.0)


class PublishingConfig(_Config):
    """Where the pixels of a derived run go."""

    directory: Path | None = None
    """Folder for one HDF5 file a run, which the Tiled server must be able to read; it may name keys
    of the start document, as in ``/data/{data_session}/derived``. None: the slices travel inside
    the events, which any server accepts and which is slower."""
    group: str | None = None
    """Group that owns the files and may read them; None: that of the process."""
    path_map: tuple[tuple[str, str], ...] = ()
    """Beginnings of paths on this machine, and what they are on that of the Tiled server."""
    announce: Literal["live", "at_end"] = "live"
    """Announce each slab when it is written, or all of them when the file is closed (for disks
    without SWMR, such as NFS)."""
    spool: Path | None = None
    """Folder of this machine where derived runs wait while their Tiled server is away; None:
    ``~/.local/state/tomogan_bluesky/spool``. Slices in `directory` wait there."""
    spool_gib: float = Field(default=20.0, ge=0.0)
    """Most that may wait in it; 0: nothing waits, and a server that is away fails the run."""

    units: Literal["1/pixel", "1/cm"] = "1/pixel"
    """Of published slices. Inside, and for networks, it is 1/pixel throughout; "1/cm" needs the
    size of a pixel."""
    pixel_size_um: float | None = Field(default=None, gt=0.0)
    """Of the recorded frames, as seen in the sample."""
    pixel_size_um_key: str | None = None
    """Key of the start document with it, where each scan says its own."""

    @model_validator(mode="after")
    def _one_pixel_size(self) -> Self:
        if self.units == "1/cm" and (self.pixel_size_um is None) == (
            self.pixel_size_um_key is None
        ):
            raise ValueError(
                "units: '1/cm' needs the size of a pixel, either as pixel_size_um or from the "
                "start document as pixel_size_um_key"
            )
        return self

    def scale(self, start_doc: Mapping[str, Any], binning: int = 1) -> Scale:
        """Units and factor of the slices of a run, of which so many recorded pixels make one.

        Raises
        ------
        ConfigurationError
            The start document does not say how large a pixel is.
        """
        if self.units == "1/pixel":
            return PER_PIXEL
        size = self.pixel_size_um
        if self.pixel_size_um_key is not None:
            size = start_doc.get(self.pixel_size_um_key)
        if not isinstance(size, int | float) or not 0 < size < float("inf"):
            raise ConfigurationError(
                f"publishing.units: expected the size of a pixel in µm in the start key "
                f"{self.pixel_size_um_key!r}, to publish in 1/cm, got {size!r}; add it to the "
                "run's metadata, or publish in 1/pixel"
            )
        return Scale("1/cm", 1e4 / (size * binning))

    def for_run(self, start_doc: Mapping[str, Any]) -> Self:
        """With the folder that the start document of a run leads to.

        Raises
        ------
        ConfigurationError
            The folder names a key that the start document does not have.
        """
        if self.directory is None:
            return self
        template = str(self.directory)
        values = {}
        for key in (name for _, name, _, _ in Formatter().parse(template) if name is not None):
            value = str(start_doc.get(key, ""))
            # One name of a folder: metadata must not lead out of the folder of derived data.
            if not value or value.startswith(".") or "/" in value:
                raise ConfigurationError(
                    f"publishing.directory: expected the start key {key!r} in {template!r} to be "
                    f"the name of a folder, got {start_doc.get(key)!r}; add it to the run's "
                    "metadata"
                )
            values[key] = value
        return self.model_copy(update={"directory": Path(template.format_map(values))})


class WorkerConfig(_Config):
    """Where and how the work is done. Nothing here decides a pixel."""

    kind: Literal["process", "thread"] = "process"
    """"thread": in the process of the RunEngine, which is weaker; the other settings are for a
    process."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of a computation on the CPU; None: as many as torch takes."""
    nice: int = Field(default=19, ge=0, le=19)
    """How much the process gives way to others: 19 is most."""
    memory_gib: float | None = Field(default=None, gt=0.0)
    """Most memory for documents, with the images inside them, of scans that are not finished; what
    comes beyond is left out, and the scan has to be replayed. None: a quarter of the machine's."""
    copy_images: bool = False
    """The detector uses the array of an image again for the next one: copy it at once."""
    hang_s: float = Field(default=600.0, gt=0.0)
    """Seconds without getting on after which the process is killed, and another one takes over: by
    the clock where it does nothing, of processor time where it computes."""
    linger_s: float = Field(default=3600.0, ge=0.0)
    """Seconds for which the process finishes what it has after the program has ended."""


class PlanSettings(_Config):
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


class Settings(_Config):
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
        """Hexadecimal sha256 of what is decisive: the same in any process."""
        text = json.dumps(self.decisive(), sort_keys=True)
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


def checked(model: type[Model], content: Any, where: str) -> Model:
    """Settings from plain data, with errors that name the setting.

    Raises
    ------
    ConfigurationError
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'all'}: {problem['msg']}, got "
            f"{problem['input']!r}"
            for problem in error.errors()
        )
        raise ConfigurationError(f"{where}: {problems}") from error


def plan_settings(start_doc: Mapping[str, Any]) -> PlanSettings:
    """What the plan of a run says of it, under the start key ``tomogan``.

    Raises
    ------
    ConfigurationError
        A setting that is unknown or wrong.
    """
    return checked(PlanSettings, start_doc.get("tomogan") or {}, "start key 'tomogan'")
