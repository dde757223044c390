"""How good models are on archived scans.

Enter: a catalog, a query, models. Leave: a `Result` a scan. The reference is the scan at full dose
of the same sample where there is one. A single scan is its own: what its even projections show,
denoised, against what the odd ones show, whose noise is independent.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from ..denoise.denoiser import Denoiser
from ..errors import NoScansError, TomoGANError
from ..publish.query import DOSE_KEY, ScanQuery
from .catalogs import Rejection, ScanReader, find_runs, reject, uid_of
from .dose_pairs import paired_scans
from .noise2inverse import scan_splits
from .open_scan import OpenScan
from .scoring import NOISY, SCORES, Result

HALVES = "even against odd projections"


class ScanScores:
    """Results of the scans that answer a query, one scan after another.

    Attributes
    ----------
    rejected : list of Rejection
        Complete once all results were taken.
    """

    def __init__(
        self, reader: ScanReader, query: ScanQuery, models: Mapping[str, Denoiser]
    ) -> None:
        self._reader, self._query, self._models = reader, query, models
        self.rejected: list[Rejection] = []

    def __iter__(self) -> Iterator[Result]:
        self.rejected = []
        try:
            paired = paired_scans(self._reader, self._query)
        except NoScansError:
            yield from self._alone(find_runs(self._reader.catalog, self._query))
            return
        for low, full in paired.opened():
            uid, dose = low.start["uid"], float(low.start[DOSE_KEY])
            try:
                slabs = ((a, b) for (_, a), (_, b) in zip(low.slices(), full.slices(), strict=True))
                results = self._scored(_name(low), dose, slabs)
            except TomoGANError as error:
                paired.drop(uid, str(error))
                continue
            yield from results
        self.rejected = paired.unmatched

    def _alone(self, runs: list[Any]) -> Iterator[Result]:
        for run in runs:
            try:
                with ExitStack() as stack:
                    scan = stack.enter_context(self._reader.open(run))
                    dose = float(scan.start.get(DOSE_KEY, 1.0))
                    halves = ((splits[0], splits[1]) for _, splits in scan_splits(scan))
                    results = self._scored(f"{_name(scan)}, {HALVES}", dose, halves)
            except TomoGANError as error:
                self.rejected.append(reject(uid_of(run), str(error)))
                continue
            yield from results

    def _scored(
        self, case: str, dose: float, slabs: Iterator[tuple[torch.Tensor, torch.Tensor]]
    ) -> list[Result]:
        """Scores of the noisy slices and of each model, slab by slab."""
        collected: dict[str, dict[str, list[float]]] = {}
        n_slices = 0
        for noisy, reference in slabs:
            n_slices += len(noisy)
            methods = {NOISY: noisy} | {k: m(noisy).cpu() for k, m in self._models.items()}
            for method, images in methods.items():
                scores = collected.setdefault(method, {name: [] for name in SCORES})
                for image, wanted in zip(images.numpy(), reference.numpy(), strict=True):
                    for name, (measure, _) in SCORES.items():
                        scores[name].append(measure(image, wanted))
        results = []
        for method, scores in collected.items():
            arrays = {name: np.array(values) for name, values in scores.items()}
            # There is one reference, and it is the one of full dose.
            arrays |= {f"{name}_full": arrays[name] for name in ("psnr", "ssim")}
            results.append(Result(case, dose, method, ("scan",) * n_slices, arrays))
        return results


def scan_scores(reader: ScanReader, query: ScanQuery, models: Mapping[str, Denoiser]) -> ScanScores:
    """Score models on the scans that answer a query.

    Parameters
    ----------
    reader : ScanReader
    query : ScanQuery
    models : mapping of str to Denoiser
        By the name under which their results appear.
    """
    return ScanScores(reader, query, models)


def _name(scan: OpenScan) -> str:
    return str(scan.start["uid"])[:8]
