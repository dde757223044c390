"""Whether the checks of denoised slices find what is wrong, and nothing where all is right.

    python benchmarks/checks.py [--quick] [--json] [--model MODEL] [--doses DOSE …] [--threads N]

Slices of the pinned set 256, one of each kind, at several doses: the truth, the reconstruction, the
denoised slice, and that after it was blurred by a pixel, made 3 % denser, given a disc of 2 pixels
and a fifth of the contrast, or robbed of one. A row is one of these at one dose: the range of chi²
and of the strangest spot over the slices, and the share of them that is remarked on.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from tomogan_bluesky.config import DEFAULT_MODEL
from tomogan_bluesky.denoise.denoiser import TorchScriptDenoiser
from tomogan_bluesky.pipeline.checks import SliceChecks, measure
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.training.pinned import PINNED_SETS, PinnedScans
from tomogan_bluesky.trust.consistency import Photons

_SET = "256"


def versions(clean: torch.Tensor, noisy: torch.Tensor, denoised: torch.Tensor) -> Mapping[str, Any]:
    """What is checked, by name."""
    n = clean.shape[-1]
    y, x = np.mgrid[:n, :n]
    contrast = clean.abs().flatten(1).quantile(0.99, dim=1)[:, None, None]
    disc = 0.2 * contrast * torch.from_numpy(np.hypot(y - 0.55 * n, x - 0.45 * n) <= 2)
    return {
        "truth": clean,
        "reconstruction": noisy,
        "denoised": denoised,
        "blurred": torch.from_numpy(ndimage.gaussian_filter(denoised.numpy(), (0, 1, 1))),
        "3 % denser": 1.03 * denoised,
        "disc made up": denoised + disc,
        "disc removed": denoised - disc,
    }


def frames_of(sinograms: torch.Tensor, angles: list[int], part: slice) -> np.ndarray:
    """Some projections of some rows, (row, angle, column)."""
    return sinograms[part, angles].numpy()


def rows(model: str, doses: list[float], size: int) -> Iterator[dict[str, Any]]:
    """Figures of each version at each dose."""
    recipe = PINNED_SETS[_SET].model_copy(update={"size": size, "n_angles": 402 * size // 256})
    scans, denoiser = PinnedScans(recipe, 1), TorchScriptDenoiser(model)
    reconstruct = Gridrec(scans.geometry, recipe.filter)
    clean = reconstruct(scans.clean())
    for dose in doses:
        sinograms = scans.measured(dose)
        noisy = reconstruct(sinograms)
        measured = measure(
            partial(frames_of, sinograms),
            lambda frames, row, angles: torch.from_numpy(frames)[0],
            lambda row: (row, row + 1),
            scans.geometry,
            Photons(recipe.photons * dose, 0.0, recipe.n_references),
            range(len(noisy)),
        )
        denoised = torch.cat([denoiser(one[None]) for one in noisy])
        for name, images in versions(clean, noisy, denoised).items():
            of_all = []
            for i in range(len(noisy)):
                checks = SliceChecks(denoiser.card, [i], measured)
                checks.slab(range(i, i + 1), noisy[i : i + 1], images[i : i + 1])
                of_all.append({**checks.found[0], "remarked": float(bool(checks.remarks()))})
            found = {name: [of[name] for of in of_all] for name in of_all[0]}
            case = {"benchmark": "checks", "case": f"{_SET}, dose {dose:g}", "method": name}
            for metric in ("chi2_denoised", "strangest_spot"):
                for end in (min, max):
                    value = float(end(found[metric]))
                    yield {**case, "metric": f"{end.__name__} {metric}", "value": value, "unit": ""}
            share = float(np.mean(found["remarked"]))
            yield {**case, "metric": "remarked on", "value": share, "unit": ""}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small and at one dose, for a test")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--doses", nargs="+", type=float, default=[1.0, 0.25, 0.1])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    doses, size = ([0.25], 64) if args.quick else (args.doses, 256)
    if not args.json:
        print(f"{'case':16s} {'slices':16s} {'chi²':>15s} {'strangest spot':>17s}  remarked on")
    line: list[float] = []
    for row in rows(args.model, doses, size):
        if args.json:
            print(json.dumps(row), flush=True)
            continue
        line.append(row["value"])
        if row["metric"] == "remarked on":
            chi2, spot = (f"{a:.2f} to {b:.2f}" for a, b in (line[:2], line[2:4]))
            print(f"{row['case']:16s} {row['method']:16s} {chi2:>15s} {spot:>17s}  {line[4]:.0%}")
            line.clear()


if __name__ == "__main__":
    main()
