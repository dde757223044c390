import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tomogan_bluesky.errors import AnglesError, ReconstructionError, RotationCentreError
from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.recon.centre import (
    AGREEMENT,
    centre_by_centroid,
    centre_by_wedge,
    centre_from_pair,
    find_centre,
    opposed_pair,
)
from tomogan_bluesky.recon.flatfield import attenuation, transmission

HALF_TURN = np.arange(120) * (np.pi / 120)


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).resolve().parents[3] / "benchmarks" / "centre.py"
    spec = importlib.util.spec_from_file_location("benchmark_centre", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclass looks for itself
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def scan(make_blobs):
    """Sinograms (row, angle, column) of samples around a given axis, with little noise."""

    def make(centre, theta=HALF_TURN, n_columns=160, radius=40, rows=2):
        rng = np.random.default_rng(0)
        geometry = ScanGeometry(theta, centre, n_columns)
        lines = torch.cat([make_blobs(radius, seed).sinogram(geometry) for seed in range(rows)])
        lines /= lines.max()
        return lines + torch.from_numpy(rng.normal(0, 0.01, lines.shape)).float()

    return make


@pytest.mark.parametrize(
    ("theta_deg", "pair"),
    [
        (np.linspace(0, 180, 181), (0, 180)),
        (np.linspace(0, 180, 181) - 37.5, (0, 180)),
        (np.linspace(180, 0, 181), (0, 180)),
        (np.linspace(0, 360, 361), (0, 180)),
        (np.arange(0, 180, 0.25), (0, 719)),
        (np.concatenate((np.arange(0, 178), [180.1, 3.3])), (0, 178)),
        (np.array([0, 90, 45, 180]), (0, 3)),
        (np.array([350, 100, 170]), (0, 2)),
    ],
)
def test_finds_the_projections_half_a_turn_apart(theta_deg, pair):
    assert opposed_pair(np.deg2rad(theta_deg)) == pair


@pytest.mark.parametrize(
    ("theta_deg", "closest"),
    [
        (np.arange(0, 91, 1.0), "90 degrees apart"),
        (np.arange(0, 170, 10.0), "160 degrees apart"),
        (np.zeros(4), "0 degrees apart"),
        (np.zeros(1), "1 projection"),
    ],
)
def test_refuses_scans_without_such_a_pair(theta_deg, closest):
    with pytest.raises(RotationCentreError, match=closest):
        opposed_pair(np.deg2rad(theta_deg))


@pytest.mark.parametrize("n_columns", [128, 193])
@pytest.mark.parametrize("offset", [-22.4, -0.3, 0.0, 17.85])
@pytest.mark.parametrize("photons", [300, 1e9])
def test_finds_the_centre_of_noisy_scans(n_columns, offset, photons, make_blobs):
    centre = (n_columns - 1) / 2 + offset
    geometry = ScanGeometry(np.array([0, np.pi]), centre, n_columns)
    lines = make_blobs(radius=0.3 * n_columns, n=30).sinogram(geometry).numpy()
    lines = 1.5 * lines.repeat(4, axis=0) / lines.max()
    counts = np.random.default_rng(0).poisson(photons * np.exp(-lines))
    corrected = torch.from_numpy(np.maximum(counts, 0.5) / photons).float()
    assert centre_from_pair(corrected[:, 0], corrected[:, 1]) == pytest.approx(centre, abs=0.25)
    absorbed = -corrected.log()
    assert centre_from_pair(absorbed[:, 0], absorbed[:, 1]) == pytest.approx(centre, abs=0.25)
    # The other way round it is the same pair.
    assert centre_from_pair(absorbed[:, 1], absorbed[:, 0]) == pytest.approx(centre, abs=0.25)


@pytest.mark.parametrize("centre", [70.3, 96.0])
def test_empty_columns_do_not_correlate(centre, make_blobs):
    geometry = ScanGeometry(np.array([0, np.pi]), centre, 193)
    pin = make_blobs(radius=26, n=1)
    pin.blobs[:] = [[1.0, 2.0, 55.0, 0.0]]
    lines = pin.sinogram(geometry).repeat(3, 1, 1)
    assert centre_from_pair(lines[:, 0], lines[:, 1]) == pytest.approx(centre, abs=0.05)


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("seed", range(5))
def test_refuses_noise(rows, seed):
    torch.manual_seed(seed)
    with pytest.raises(RotationCentreError, match="a correlation of"):
        centre_from_pair(*torch.randn(2, rows, 256))


@pytest.mark.parametrize("value", [0.0, 0.3333])
def test_refuses_empty_projections(value):
    with pytest.raises(RotationCentreError, match="a sample in the beam"):
        centre_from_pair(*torch.full((2, 4, 64), value))


def test_refuses_projections_that_do_not_fit_or_are_not_finite():
    with pytest.raises(RotationCentreError, match=r"\(4, 64\) and \(4, 63\)"):
        centre_from_pair(torch.zeros(4, 64), torch.zeros(4, 63))
    broken = torch.zeros(4, 64)
    broken[2, 9] = torch.nan
    with pytest.raises(RotationCentreError, match="second projection has nan at row 2, column 9"):
        centre_from_pair(torch.zeros(4, 64), broken)


def test_real_scan_agrees_with_what_others_find(tooth_counts):
    projections, dark, flat, theta = tooth_counts
    corrected = transmission(projections, dark, flat)
    line_integrals, _ = attenuation(corrected, 1e-6)
    first, second = opposed_pair(theta)
    for stack in (corrected, line_integrals):
        assert 295 <= centre_from_pair(stack[:, first], stack[:, second]) <= 296.5


@pytest.mark.parametrize("centre", [59.3, 79.5, 98.0])
@pytest.mark.parametrize(
    "theta",
    [
        HALF_TURN,
        np.linspace(0, np.pi, 121),
        HALF_TURN[::-1] - 1.0,
        HALF_TURN[np.random.default_rng(0).permutation(120)],
        np.linspace(0, 2 * np.pi, 241),
    ],
    ids=["open", "closed", "downwards", "in no order", "full turn"],
)
def test_methods_agree_on_the_axis(centre, theta, scan):
    found = find_centre(scan(centre, theta), theta)
    assert list(found.methods) == ["pair", "wedge", "centroid"]
    for estimate in (*found.methods.values(), found.centre):
        assert estimate == pytest.approx(centre, abs=0.25)
    assert found.agreed
    assert found.confidence > 0.8
    assert "agree to within 1 columns" in found.reason


@pytest.mark.parametrize("n_columns", [64, 97, 600])
def test_wedge_and_centroid_are_exact_at_any_size(n_columns, scan):
    centre = 0.47 * n_columns
    sinograms = scan(centre, n_columns=n_columns, radius=0.25 * n_columns)
    assert centre_by_wedge(sinograms, HALF_TURN) == pytest.approx(centre, abs=0.25)
    assert centre_by_centroid(sinograms, HALF_TURN) == pytest.approx(centre, abs=0.1)


def test_missing_projections_do_not_move_the_wedge(scan):
    theta = np.delete(HALF_TURN, [17, 60, 61 + 20])
    assert centre_by_wedge(scan(90.0, theta), theta) == pytest.approx(90.0, abs=0.2)


def test_uneven_angles_do_not_move_the_wedge(scan):
    even = np.arange(120) / 120
    theta = np.pi * (even + 0.1 * np.sin(2 * np.pi * even))
    assert centre_by_wedge(scan(90.0, theta), theta) == pytest.approx(90.0, abs=0.1)


def test_uneven_air_does_not_move_the_centroid(scan):
    background = torch.linspace(-0.005, 0.004, 160)
    found = centre_by_centroid(scan(64.0) + background, HALF_TURN)
    assert found == pytest.approx(64.0, abs=0.1)


def test_an_axis_that_moves_is_flagged(scan):
    sinograms = scan(75.0)
    sinograms[:, 5:115] = scan(81.0)[:, 5:115]
    found = find_centre(sinograms, HALF_TURN)
    assert max(found.methods.values()) - min(found.methods.values()) > AGREEMENT
    assert not found.agreed
    assert found.confidence < 0.5
    assert "do not agree to within 1 columns" in found.reason
    assert min(found.methods.values()) < found.centre < max(found.methods.values())


def test_two_that_do_not_agree_give_the_first(scan):
    """A sample wider than the field of view has no centre of mass."""
    wide = scan(120.0, n_columns=240, radius=110)[..., 40:200]
    wide[:, 1:-1] = torch.roll(wide, 6, dims=2)[:, 1:-1]
    found = find_centre(wide, HALF_TURN)
    assert list(found.methods) == ["pair", "wedge"]
    assert not found.agreed
    assert found.confidence < 0.5
    assert found.centre == found.methods["pair"]
    assert "'centroid' failed: expected air on both sides" in found.reason


def test_a_single_method_is_not_confirmed(scan):
    short = HALF_TURN[:90]
    found = find_centre(scan(86.2, short), short)
    assert list(found.methods) == ["centroid"]
    assert found.centre == pytest.approx(86.2, abs=0.1)
    assert not found.agreed
    assert found.confidence < 0.5
    assert "nothing confirms centroid 86.2" in found.reason
    assert "'pair' failed: expected two projections 180 degrees apart" in found.reason
    assert "'wedge' failed: expected angles all over half a turn" in found.reason


@pytest.mark.parametrize("method", ["pair", "wedge", "centroid"])
def test_asks_the_method_that_is_asked_for(method, scan):
    found = find_centre(scan(70.0), HALF_TURN, method=method)
    assert list(found.methods) == [method]
    assert found.centre == found.methods[method] == pytest.approx(70.0, abs=0.25)
    with pytest.raises(RotationCentreError, match=f"'{method}' failed"):
        find_centre(torch.zeros(1, 1, 160), HALF_TURN[:1], method=method)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_finds_nothing_in_nothing(seed, value):
    torch.manual_seed(seed)
    with pytest.raises(RotationCentreError, match="'pair' failed.*'wedge' failed.*'centroid'"):
        find_centre(value * torch.randn(1, 300, 256), np.arange(300) * (np.pi / 300))


def test_refuses_input_that_makes_no_sense(scan):
    sinograms = scan(80.0)
    with pytest.raises(ReconstructionError, match=r"got \(120, 160\)"):
        find_centre(sinograms[0], HALF_TURN)
    with pytest.raises(ReconstructionError, match=r"\(0, 120, 160\)"):
        find_centre(sinograms[:0], HALF_TURN)
    with pytest.raises(ReconstructionError, match="as in the scan's geometry"):
        find_centre(sinograms, HALF_TURN[1:])
    with pytest.raises(AnglesError, match="if these are degrees"):
        find_centre(sinograms, np.rad2deg(HALF_TURN))
    sinograms[1, 3, 4] = torch.nan
    with pytest.raises(ReconstructionError, match="nan at slice 1, angle 3, column 4"):
        find_centre(sinograms, HALF_TURN)


def test_simulated_scans_are_found_or_flagged(benchmark):
    """Of the benchmark, twelve small scans: few photons, all families, truncated or not."""
    results = [benchmark.measure(benchmark.simulate(i, 128, 0.1, rows=2)) for i in range(12)]
    figures = benchmark.summary(results, "result")
    assert figures["found"] == 12
    assert figures["within half a column"] >= 11
    assert figures["worse and not flagged"] == 0
    short = [benchmark.measure(benchmark.simulate(i, 128, 0.1, True, rows=2)) for i in range(4)]
    assert benchmark.summary(short, "result")["worse and not flagged"] == 0


def test_benchmark_prints_one_object_a_line(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["centre.py", "--quick", "--json", "--columns", "64"])
    assert benchmark.main() == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    keys = ["benchmark", "case", "method", "metric", "value", "unit"]
    assert all(list(row) == keys for row in rows)
    assert {row["method"] for row in rows} == set(benchmark.METHODS)


def test_real_scan_is_found_by_all_methods(tooth_counts):
    projections, dark, flat, theta = tooth_counts
    line_integrals, _ = attenuation(transmission(projections, dark, flat), 1e-6)
    found = find_centre(line_integrals, theta)
    assert len(found.methods) == 3
    assert found.agreed
    for centre in (*found.methods.values(), found.centre):
        assert 295 <= centre <= 296.5
