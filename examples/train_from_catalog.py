"""From paired scans to a model in the callback: what a new beamline does, on a simulated one.

Scan samples at full dose and at a quarter of it, train a model from the catalog, see how good it
is, and denoise the next scan with it. Small and quick here; `docs/tutorials/train-a-model.md` says
what to change for real.

Run it:  python examples/train_from_catalog.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
from bluesky import RunEngine

from tomogan_bluesky import PublishingConfig, TomoGANCallback
from tomogan_bluesky.cli import main as run_command
from tomogan_bluesky.publish.server import serve_catalog
from tomogan_bluesky.publish.tiled_publisher import TiledPublisher
from tomogan_bluesky.recon.beam import Beam
from tomogan_bluesky.recon.phantoms import make_phantom
from tomogan_bluesky.sim.beamline import SimBeamline
from tomogan_bluesky.sim.plans import paired_dose_scan, tomo_scan


def beamline_with(family: str, columns: int, angles_deg: np.ndarray, seed: int) -> SimBeamline:
    """A simulated beamline with a sample on its stage."""
    phantom = make_phantom(family, 2 * columns, np.random.default_rng(seed), rows=3)
    return SimBeamline(phantom, angles_deg, Beam(photons=2e4, seed=seed))


def devices(beamline: SimBeamline) -> tuple:
    """What plans move and read."""
    return beamline.camera, beamline.rotation, beamline.shutter, beamline.sample


def command(*words: str) -> None:
    """Run `tomogan-bluesky` with these words."""
    if run_command(words) != 0:
        raise SystemExit(f"failed: tomogan-bluesky {' '.join(words)}")


def main(
    folder: str = "train_from_catalog",
    columns: int = 96,
    n_angles: int = 91,
    families: tuple[str, ...] = ("foam", "shale", "spheres"),
    steps: int = 300,
) -> str:
    """Scan, train, evaluate, denoise; returns the uid of the derived run."""
    angles_deg = np.linspace(0, 180, n_angles)
    catalog, output = Path(folder) / "catalog", Path(folder) / "model"
    if output.exists():
        raise SystemExit(f"{output} holds a model already: name another folder")
    with serve_catalog(catalog) as server:
        # 1. Scans of some samples at full dose and at a quarter of it, into the catalog.
        for seed, family in enumerate(families):
            beamline = beamline_with(family, columns, angles_deg, seed)
            RE = RunEngine()
            RE.subscribe(TiledPublisher(server.client(), batch_size=100))
            plan = paired_dose_scan(
                *devices(beamline),
                angles_deg,
                exposure_s=0.01,
                doses=(1.0, 0.25),
                n_darks=4,
                n_flats=4,
                md={"sample": {"name": family}, "technique": "training"},
            )
            RE(plan)

        # 2. Train from the catalog: the last sample is kept back to validate with.
        scans = ["--catalog", str(catalog), "--query", "technique=training"]
        small = ["--steps", str(steps), "--base", "8", "--batch", "4", "--crop", "48"]
        command("train", *scans, *small, "--name", "my-beamline", "--output", str(output))
        model = output / "model.ts"

        # 3. Its scores on the same catalog, beside those of the scans as they are.
        command("evaluate", str(model), *scans)

        # 4. Use it: the next scan is of another sample, at a quarter of the dose.
        beamline = beamline_with("grains", columns, angles_deg, seed=99)
        RE = RunEngine()
        with TomoGANCallback(
            server.client(), model=model, publishing=PublishingConfig(directory=server.volumes)
        ) as tomogan:
            RE.subscribe(tomogan)
            RE(tomo_scan(*devices(beamline), angles_deg, n_darks=4, n_flats=4))
            (report,) = tomogan.wait()
        print(f"{report.exit_status}: {report.n_slices} slices, derived run {report.derived_uid}")
    return report.derived_uid


if __name__ == "__main__":
    main(*sys.argv[1:2])
