"""Pairs to learn from, made of the scans of a catalog and kept on disk.

Enters: a catalog, a query, and the way in which a target is found for a noisy slice. Leave: pairs
of each sample, read from files that are written once. A scan that cannot be used is listed with the
reason, and leaves the others alone.
"""

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..errors import ConfigurationError, NoScansError, TomoGANError
from ..publish.query import DOSE_KEY, ScanQuery, start_of
from .catalogs import Rejection, ScanReader, find_runs, reject, uid_of
from .dose_pairs import PAIR_KEY, paired_scans
from .noise2inverse import SPLITS, scan_splits, split_pairs
from .noise_profile import NoiseProfile, measure_noise, relative_noise, split_exposure
from .open_scan import OpenScan
from .pairs import Pairs
from .pairs_file import open_pairs, provenance_of, write_pairs

logger = logging.getLogger(__name__)

Mode = Literal["supervised", "noise2noise", "noise2inverse"]
_HALF = 0.5


@dataclass(frozen=True, eq=False)
class SamplePairs:
    """Pairs of one sample.

    Attributes
    ----------
    uids : tuple of str
        Of the runs that they were made of.
    sample : str
        What all pairs of one sample share: by it, training and validation are told apart.
    pairs : Pairs
        With their pixels on disk.
    detector : NoiseProfile or None
        Of the run that has the target, where its darks and flats tell.
    least_noise : float or None
        Of the scans that a network which learned from them is meant for (see `run.harmless`), where
        the darks and flats of the run with the noisy slices tell.
    """

    uids: tuple[str, ...]
    sample: str
    pairs: Pairs
    detector: NoiseProfile | None
    least_noise: float | None


class ScanPairs:
    """Makes pairs of the scans of a catalog.

    Parameters
    ----------
    reader : ScanReader
    folder : path
        Where the files of pairs are kept: what is there already is not made again.

    Attributes
    ----------
    rejected : list of Rejection
        What was found and could not be used.
    """

    def __init__(self, reader: ScanReader, folder: Path) -> None:
        self._reader = reader
        self._folder = folder
        self.rejected: list[Rejection] = []

    def of_mode(self, mode: Mode, query: ScanQuery, splits: int = SPLITS) -> list[SamplePairs]:
        """Pairs in one of the modes.

        Raises
        ------
        NoScansError
            Nothing answers the query, or nothing that does can be used. Says why of each run.
        """
        if mode == "supervised":
            return self.supervised(query)
        return self.noise2noise(query) if mode == "noise2noise" else self.single(query, splits)

    def supervised(self, query: ScanQuery) -> list[SamplePairs]:
        """Low-dose scans with the full-dose scan of the same sample as target."""
        paired = paired_scans(self._reader, query)
        made: list[SamplePairs] = []
        missing = []
        for group in paired.groups:
            low = []
            for run in group.low:
                path = self._path("supervised", (uid_of(run), uid_of(group.full)))
                if path.exists():
                    made.append(self._opened(path, uid_of(group.full)))
                else:
                    low.append(run)
            if low:
                missing.append(replace(group, low=low))
        for low_scan, full in paired.opened(missing):
            uids = low_scan.start["uid"], full.start["uid"]
            path = self._path("supervised", uids)
            slabs = _supervised(low_scan, full, float(low_scan.start[DOSE_KEY]))
            try:
                self._write(path, uids, low_scan.shape[0], slabs, full, _noise_of(low_scan))
            except TomoGANError as error:
                paired.drop(uids[0], str(error))
                continue
            made.append(self._opened(path, uids[1]))
        self.rejected += paired.unmatched
        return self._some(made, "pairs of a low-dose and a full-dose scan")

    def single(self, query: ScanQuery, splits: int = SPLITS) -> list[SamplePairs]:
        """Each scan against itself: what some projections show and the others do."""
        return self._each(
            find_runs(self._reader.catalog, query),
            ("noise2inverse", splits),
            lambda scan: (splits * scan.shape[0], _split(scan, splits)),
        )

    def low_dose(
        self, query: ScanQuery, doses: Sequence[float], seed: int = 0
    ) -> list[SamplePairs]:
        """Full-dose scans made low-dose by the noise profile of their detector.

        The photons of each scan are divided at random: a share of them is the noisy scan, the rest
        the target, whose noise is its own. What learns from halves or more is meant for the scans
        themselves, as in noise2inverse but with all projections; what learns from
        less, for scans of that dose.

        Parameters
        ----------
        query : ScanQuery
        doses : sequence of float
            Shares, in (0, 1); each is divided anew.
        seed : int
        """
        if not doses or not all(0 < dose < 1 for dose in doses):
            raise ConfigurationError(f"doses: expected shares between 0 and 1, got {list(doses)}")
        return self._each(
            find_runs(self._reader.catalog, query),
            ("low-dose", *doses, seed),
            lambda scan: (len(doses) * scan.shape[0], _thinned(scan, doses, seed)),
            share=1.0 if max(doses) >= _HALF else max(doses),
        )

    def noise2noise(self, query: ScanQuery) -> list[SamplePairs]:
        """Two scans of one sample at one dose, each as the target of the other."""
        groups: dict[tuple[str, Any], list[Any]] = defaultdict(list)
        for run in find_runs(self._reader.catalog, query):
            start = start_of(run)
            groups[_sample_of(start), start.get(DOSE_KEY)].append(run)
        made = []
        for runs in groups.values():
            if len(runs) % 2:
                reason = "there is no second scan of the same sample and dose to pair it with"
                self.rejected.append(reject(uid_of(runs.pop()), reason))
            for one, two in zip(runs[::2], runs[1::2], strict=True):
                uids = uid_of(one), uid_of(two)
                path = self._path("noise2noise", uids)
                try:
                    if not path.exists():
                        with (
                            self._reader.open(one) as first,
                            self._reader.open(two, first.rotation_centre) as second,
                        ):
                            n = first.shape[0]
                            slabs = _each_other(first, second)
                            self._write(path, uids, 2 * n, slabs, first, _noise_of(first))
                except TomoGANError as error:
                    self.rejected += [reject(uid, str(error)) for uid in uids]
                    continue
                made.append(self._opened(path, _sample_of(start_of(one))))
        return self._some(made, "two scans of one sample at one dose")

    # Files -------------------------------------------------------------------------------------

    def _each(
        self,
        runs: Sequence[Any],
        kind: tuple[Any, ...],
        make: Callable[[OpenScan], tuple[int, Iterator[tuple[int, Pairs]]]],
        share: float = 1.0,
    ) -> list[SamplePairs]:
        """Pairs of single scans, for scans of such a share of their photons."""
        made = []
        for run in runs:
            path = self._path(kind, (uid_of(run),))
            try:
                if not path.exists():
                    with self._reader.open(run) as scan:
                        n_slices, slabs = make(scan)
                        noise = _noise_of(scan, share)
                        self._write(path, (uid_of(run),), n_slices, slabs, scan, noise)
            except TomoGANError as error:
                self.rejected.append(reject(uid_of(run), str(error)))
                continue
            made.append(self._opened(path, _sample_of(start_of(run))))
        return self._some(made, "scans")

    def _path(self, kind: Any, uids: tuple[str, ...]) -> Path:
        """Named by all that decides the pixels."""
        key = [kind, uids, self._reader.settings()]
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self._folder / f"pairs-{digest[:16]}.h5"

    def _write(
        self,
        path: Path,
        uids: tuple[str, ...],
        n_slices: int,
        slabs: Iterator[tuple[int, Pairs]],
        scan: OpenScan,
        least_noise: float | None,
    ) -> None:
        logger.info("reconstructing %s", ", ".join(uids))
        profile = detector_of(scan)
        provenance = {
            "uids": uids,
            "rotation_centre": scan.rotation_centre,
            "detector": None if profile is None else profile.model_dump(),
            "least_noise": least_noise,
        }
        write_pairs(path, n_slices, slabs, provenance, n_slices // scan.shape[0])

    def _opened(self, path: Path, sample: str) -> SamplePairs:
        known = provenance_of(path)
        profile = known["detector"] and NoiseProfile.model_validate(known["detector"])
        noise = known.get("least_noise")  # files of before say nothing of it
        return SamplePairs(tuple(known["uids"]), sample, open_pairs(path), profile, noise)

    def _some(self, made: list[SamplePairs], wanted: str) -> list[SamplePairs]:
        if not made:
            reasons = "; ".join(f"{r.uid}: {r.reason}" for r in self.rejected)
            raise NoScansError(f"expected {wanted} that can be learned from, got none: {reasons}")
        return made


def detector_of(scan: OpenScan) -> NoiseProfile | None:
    """The noise profile of a scan's detector, where its own darks and flats tell."""
    if scan.flats is None or scan.darks is None:
        return None
    try:
        return measure_noise(scan.flats, scan.darks)
    except TomoGANError as error:
        logger.info("run %s: %s", scan.start["uid"], error)
        return None


def _noise_of(scan: OpenScan, share: float = 1.0) -> float | None:
    """Relative noise of a scan, or of one with a share of its photons, where its flats tell.

    That of a scan is meant, not of the half of its projections that noise2inverse learns from: what
    has learned from halves denoises the whole.
    """
    profile = detector_of(scan)
    if profile is None:
        return None
    return relative_noise(scan.dark.shape[1], share * profile.flat_electrons, scan.n_angles)


def split_by_sample(
    found: Sequence[SamplePairs], share: float = 0.2
) -> tuple[list[SamplePairs], list[SamplePairs]]:
    """What is learned from and what is validated with: whole samples, the last ones by name.

    Of a single sample nothing is kept back: there is no second one to tell how good it is.
    """
    samples = sorted({pairs.sample for pairs in found})
    n_kept = max(1, round(share * len(samples))) if len(samples) > 1 else 0
    kept = set(samples[len(samples) - n_kept :])
    learned = [pairs for pairs in found if pairs.sample not in kept]
    return learned, [pairs for pairs in found if pairs.sample in kept]


def some_slices(found: Sequence[SamplePairs], most: int = 20) -> Pairs | None:
    """Slices of several samples in memory, evenly spaced; of the size of the first sample.

    None where there are none.
    """
    size = found[0].pairs.target.shape[1:] if found else None
    alike = [f.pairs for f in found if f.pairs.target.shape[1:] == size]
    alike = [p for p in alike if p.noisy.shape[1] == alike[0].noisy.shape[1]]
    if not alike:
        return None
    each = max(1, most // len(alike))
    parts = []
    for pairs in alike[:most]:
        chosen = torch.linspace(0, len(pairs) - 1, min(each, len(pairs))).round().long()
        parts.append((pairs.noisy[chosen], pairs.target[chosen], pairs.dose[chosen]))
    return Pairs.of(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _sample_of(start: Mapping[str, Any]) -> str:
    """What scans of one sample share; of a scan that says nothing of its sample, itself."""
    sample = start.get(PAIR_KEY) or start.get("sample_name") or start.get("sample")
    if isinstance(sample, Mapping):
        sample = sample.get("name")
    return str(sample or start["uid"])


def _supervised(low: OpenScan, full: OpenScan, dose: float) -> Iterator[tuple[int, Pairs]]:
    for (first, noisy), (_, target) in zip(low.slices(), full.slices(), strict=True):
        yield first, Pairs.of(noisy[:, None], target, torch.full((len(noisy), 1), dose))


def _split(scan: OpenScan, n_splits: int) -> Iterator[tuple[int, Pairs]]:
    dose = float(scan.start.get(DOSE_KEY, 1.0))
    for first, splits in scan_splits(scan, n_splits):
        for k, pairs in enumerate(split_pairs(splits, dose)):
            yield k * scan.shape[0] + first, pairs


def _thinned(scan: OpenScan, doses: Sequence[float], seed: int) -> Iterator[tuple[int, Pairs]]:
    if scan.flats is None or scan.darks is None:
        raise ConfigurationError(
            "expected darks and flats in the run itself, of which the detector's noise is known"
        )
    profile = measure_noise(scan.flats, scan.darks)
    reconstruct = scan.reconstructor()
    for part in scan.parts():
        dark = scan.dark[slice(*part.recorded)]
        for k, dose in enumerate(doses):
            rng = np.random.default_rng([seed, part.first, k])
            split = split_exposure(part.frames, dark, profile, dose, rng)
            low, rest = (reconstruct(scan.attenuation(part, frames)) for frames in split)
            first = k * scan.shape[0] + part.first
            yield first, Pairs.of(low[:, None], rest, torch.full((len(low), 1), dose))


def _each_other(one: OpenScan, two: OpenScan) -> Iterator[tuple[int, Pairs]]:
    if one.shape != two.shape:
        raise ConfigurationError(
            f"expected two scans with slices of one shape, got {one.shape} and {two.shape}"
        )
    dose = float(one.start.get(DOSE_KEY, 1.0))
    for (first, a), (_, b) in zip(one.slices(), two.slices(), strict=True):
        doses = torch.full((len(a), 1), dose)
        yield first, Pairs.of(a[:, None], b, doses)
        yield one.shape[0] + first, Pairs.of(b[:, None], a, doses)
