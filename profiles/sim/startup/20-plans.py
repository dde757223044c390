"""Plans of the simulated beamline with its devices filled in, for people and for a queue."""

from tomogan_bluesky.sim import fly_plans, plans

# ruff: noqa: F821  # the devices were made by an earlier startup file


def tomography(n_darks: int = 10, n_flats: int = 10):
    """A step scan with the frames inside the events."""
    yield from plans.tomo_scan(
        camera, rotation, shutter, sample, ANGLES_DEG, n_darks=n_darks, n_flats=n_flats
    )


def tomography_to_file(n_darks: int = 10, n_flats: int = 10):
    """A step scan with the frames in a file."""
    yield from plans.tomo_scan(
        area_detector, rotation, shutter, sample, ANGLES_DEG, n_darks=n_darks, n_flats=n_flats
    )


def fly_tomography(n_darks: int = 10, n_flats: int = 10, period_s: float = 0.01):
    """A fly scan: frames and angles in files."""
    yield from fly_plans.tomo_fly_scan(
        fly_camera,
        encoder,
        fly_rotation,
        fly_shutter,
        fly_sample,
        ANGLES_DEG,
        n_darks=n_darks,
        n_flats=n_flats,
        period_s=period_s,
    )


def references(n_darks: int = 10, n_flats: int = 10):
    """Darks and flats in a run of their own."""
    yield from plans.dark_flat(camera, shutter, sample, n_darks=n_darks, n_flats=n_flats)


def paired_doses(exposure_s: float = 0.01, n_darks: int = 10, n_flats: int = 10):
    """Scans at full exposure, a quarter and a tenth of it, to train on."""
    yield from plans.paired_dose_scan(
        camera,
        rotation,
        shutter,
        sample,
        ANGLES_DEG,
        exposure_s=exposure_s,
        n_darks=n_darks,
        n_flats=n_flats,
    )
