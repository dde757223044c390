import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tomogan_bluesky.errors import ReconstructionError
from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.recon.incremental import IncrementalGridrec, state_bytes
from tomogan_bluesky.recon.kernel import FourierGrid

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
N_ANGLES, N_SLICES, N_COLUMNS = 75, 11, 64
GOLDEN = np.arange(N_ANGLES) * np.pi * (np.sqrt(5) - 1) / 2 % (2 * np.pi)
EVEN = np.arange(N_ANGLES) * np.pi / N_ANGLES
GEOMETRY = ScanGeometry(EVEN, 30.3, N_COLUMNS)
ORDERS = {
    "in order": np.arange(N_ANGLES),
    "backwards": np.arange(N_ANGLES)[::-1],
    "any": np.random.default_rng(0).permutation(N_ANGLES),
}


@pytest.fixture
def sinograms():
    return torch.rand(N_SLICES, N_ANGLES, N_COLUMNS, generator=torch.Generator().manual_seed(1))


def feed(reconstruct, sinograms, order):
    for index in order:
        reconstruct.add(int(index), sinograms[:, index])


@pytest.mark.parametrize("theta", [EVEN, GOLDEN], ids=["even", "golden"])
@pytest.mark.parametrize("block", [1, 16, 75, 1000])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_bits_are_those_of_the_batch(theta, block, order, sinograms):
    geometry = ScanGeometry(theta, 30.3, N_COLUMNS)
    reconstruct = IncrementalGridrec(geometry, N_SLICES, "shepp", block=block)
    feed(reconstruct, sinograms, order)
    batch = Gridrec(geometry, "shepp")(sinograms)
    assert torch.equal(reconstruct.result(), batch)
    assert torch.equal(reconstruct.result(slice(5, 9)), batch[5:9])
    assert reconstruct.origin == Gridrec(geometry).origin


@pytest.mark.parametrize(
    ("first", "turn", "is_nearly_finished"),
    [
        (0, np.pi, True),
        (0, -np.pi, True),
        (np.pi, np.pi, True),
        (-np.pi / 2, np.pi, True),
        (0, 2 * np.pi, True),
        (0.9, np.pi, False),
        (0, 150 * GOLDEN[1], False),
    ],
    ids=["even", "reverse", "half-on", "right-angle", "full", "slanted", "golden"],
)
def test_only_a_few_columns_are_left_for_the_end(first, turn, is_nearly_finished):
    geometry = ScanGeometry((first + np.arange(150) * turn / 150) % (2 * np.pi), 30.3, N_COLUMNS)
    sinograms = torch.rand(3, 150, N_COLUMNS)
    reconstruct = IncrementalGridrec(geometry, 3, block=4)
    feed(reconstruct, sinograms, np.arange(149))
    n_columns = reconstruct._gridding.grid.shape[0]
    assert (reconstruct._grid.first_finished < 0.7 * n_columns) == is_nearly_finished
    preview = reconstruct.preview([0, 2])
    reconstruct.add(149, sinograms[:, -1])
    batch = Gridrec(geometry)(sinograms)
    assert torch.equal(reconstruct.result(), batch)
    assert not torch.equal(preview, batch[[0, 2]])


@pytest.mark.parametrize("transposed", [False, True])
def test_reach_of_a_projection_is_its_last_column(transposed):
    grid = FourierGrid(GEOMETRY, 1.5, transposed=transposed)
    for theta in np.linspace(-4, 4, 41)[:, None]:
        assert grid.reach(theta) == int(grid.cells_at(theta).max()) // grid.size + 1
        assert grid.reach(theta) <= grid.reach(theta, 0.01) <= grid.reach(theta) + 1


def test_angles_far_from_expected_need_what_is_retained(sinograms):
    true = EVEN.copy()
    true[[37, 70]] = true[[70, 37]]
    options = {"retained": lambda projections: sinograms[:, projections]}
    reconstruct = IncrementalGridrec(GEOMETRY, N_SLICES, **options)
    for index in range(N_ANGLES):
        reconstruct.add(index, sinograms[:, index], float(true[index]))
    batch = Gridrec(ScanGeometry(true, 30.3, N_COLUMNS))(sinograms)
    assert torch.equal(reconstruct.result(), batch)

    reconstruct = IncrementalGridrec(GEOMETRY, N_SLICES)
    feed(reconstruct, sinograms, range(70))
    with pytest.raises(ReconstructionError, match=r"projection 70: .*near 2.93.*1.54.*retained="):
        reconstruct.add(70, sinograms[:, 70], float(true[70]))
    # Refused, it has not arrived, and may come with another angle.
    feed(reconstruct, sinograms, range(70, N_ANGLES))
    assert torch.equal(reconstruct.result(), Gridrec(GEOMETRY)(sinograms))


def test_refuses_a_scan_whose_first_angle_turns_the_grid(sinograms):
    reconstruct = IncrementalGridrec(ScanGeometry(EVEN + 0.923, 30.3, N_COLUMNS), N_SLICES)
    for index in range(N_ANGLES):
        reconstruct.add(index, sinograms[:, index], EVEN[index] + 0.93)
    with pytest.raises(ReconstructionError, match=r"begins near 0.923 .*got 0.93,.*together"):
        reconstruct.result()


@pytest.mark.parametrize("n_threads", [1, 2])
def test_bits_of_larger_scans_are_those_of_the_batch(n_threads, one_or_more_threads):
    one_or_more_threads(n_threads)
    # Wide enough for two parts of a slice, of which the second is shorter.
    geometry = ScanGeometry(np.arange(400) * np.pi / 400, 123.4, 301)
    sinograms = torch.rand(3, 400, 301)
    reconstruct = IncrementalGridrec(geometry, 3)
    feed(reconstruct, sinograms, np.arange(400))
    assert torch.equal(reconstruct.result(), Gridrec(geometry)(sinograms))


@pytest.mark.parametrize("order", [ORDERS["in order"], ORDERS["any"]], ids=["in order", "any"])
def test_true_angles_may_come_with_the_projections(order, sinograms):
    true = np.linspace(0, np.pi, N_ANGLES)
    true += np.random.default_rng(0).uniform(-1e-3, 1e-3, N_ANGLES)
    # Where the last angle shows what the first did is not expected, and comes out in the end.
    reconstruct = IncrementalGridrec(GEOMETRY, N_SLICES)
    for index in order:
        reconstruct.add(int(index), sinograms[:, index], float(true[index]))
        if index == 50:
            reconstruct.preview([3])
    batch = Gridrec(ScanGeometry(true, 30.3, N_COLUMNS))(sinograms)
    assert torch.equal(reconstruct.result(), batch)


def test_a_superseding_projection_brings_its_angle(sinograms):
    reconstruct = IncrementalGridrec(GEOMETRY, N_SLICES, retained=lambda part: sinograms[:, part])
    for index in range(N_ANGLES):
        reconstruct.add(index, sinograms[:, index], EVEN[index] + 3e-3 * (index == 9))
    assert not torch.equal(reconstruct.result(), Gridrec(GEOMETRY)(sinograms))
    reconstruct.replace(9, sinograms[:, 9], EVEN[9])
    assert torch.equal(reconstruct.result(), Gridrec(GEOMETRY)(sinograms))


def test_true_angles_that_count_differently_are_refused(sinograms):
    reconstruct = IncrementalGridrec(GEOMETRY, N_SLICES)
    for index in range(N_ANGLES):
        reconstruct.add(index, sinograms[:, index], GOLDEN[index])
    with pytest.raises(ReconstructionError, match=r"expected angles that are spaced.*together"):
        reconstruct.result()


def test_agrees_with_double_precision(relative_error):
    """The same sums, written down plainly in float64, up to the highest frequencies."""
    geometry = ScanGeometry(np.arange(200) * np.pi / 200, 60.4, 128)
    sinogram = torch.randn(1, 200, 128)
    reconstruct = IncrementalGridrec(geometry, 1)
    feed(reconstruct, sinogram, np.arange(200))
    assert relative_error(reconstruct.result().double(), plain(geometry, sinogram[0])) < 1e-6


def plain(geometry, sinogram, oversampling=1.5):
    """Gridrec by its definition, on the full plane of a complex grid, in float64."""
    from tomogan_bluesky.recon.filters import band_limited_ramp
    from tomogan_bluesky.recon.kernel import KaiserBessel, slice_origin

    n, size = geometry.n_columns, int(oversampling * geometry.n_columns)
    kernel = KaiserBessel(4, size / n)
    k = torch.arange(-size // 2 + 1, size // 2)
    spectra = torch.fft.fft(sinogram.double(), size)[:, k % size]
    phase = torch.exp(2j * torch.pi * geometry.rotation_centre / size * k.double())
    spectra *= phase * band_limited_ramp(size)[k.abs()] / size * np.pi / geometry.n_angles
    grid = torch.zeros(size * size, dtype=torch.complex128)
    theta = torch.from_numpy(geometry.theta.copy())[:, None]
    u, v = torch.cos(theta) * k, -torch.sin(theta) * k
    for du in range(-1, 3):
        for dv in range(-1, 3):
            column, row = u.floor() + du, v.floor() + dv
            weight = kernel(u - column) * kernel(v - row)
            cell = (row.long() % size) * size + column.long() % size
            grid.index_add_(0, cell.flatten(), (spectra * weight).flatten())
    image = torch.fft.ifft2(grid.view(size, size), norm="forward").real
    y, x = slice_origin(n)
    image = torch.roll(image, (y, x), (0, 1))[:n, :n]
    pixel = torch.arange(n, dtype=torch.float64)
    row, column = (1 / kernel.transform((pixel - o) / size) for o in (y, x))
    return (image * torch.outer(row, column))[None]


def test_a_preview_is_the_reconstruction_of_what_has_arrived(sinograms, relative_error):
    reconstruct = IncrementalGridrec(GEOMETRY, N_SLICES)
    arrived = np.r_[5:50]
    feed(reconstruct, sinograms, arrived[::-1])
    chosen = [9, 2, 3]
    images = reconstruct.preview(chosen)
    arc = ScanGeometry(EVEN[arrived], 30.3, N_COLUMNS)
    wanted = Gridrec(arc)(sinograms[:, arrived].contiguous())
    assert relative_error(images, wanted[chosen]) < 1e-6
    assert torch.equal(reconstruct.preview(slice(2, 4)), images[1:])
    # Whole groups of slices that go through together are previewed as any other.
    assert torch.equal(reconstruct.preview(slice(None))[chosen], images)
    # A preview leaves nothing behind.
    feed(reconstruct, sinograms, np.setdiff1d(np.arange(N_ANGLES), arrived))
    batch = Gridrec(GEOMETRY)(sinograms)
    assert torch.equal(reconstruct.preview(slice(None)), batch)
    for some in ([10, 0], list(range(N_SLICES))[::-1]):
        assert torch.equal(reconstruct.preview(some), batch[some])
    assert torch.equal(reconstruct.result(), batch)


def test_interlaced_order_gives_the_whole_object_early(make_blobs, circle, relative_error):
    order = np.concatenate([np.arange(first, 160, 4) for first in (0, 2, 1, 3)])
    geometry = ScanGeometry(order * np.pi / 160, 30.3, N_COLUMNS)
    blobs = make_blobs(radius=26)
    reconstruct = IncrementalGridrec(geometry, 1)
    feed(reconstruct, blobs.sinogram(geometry), range(80))
    mask = torch.from_numpy(circle(N_COLUMNS))
    wanted = blobs.image(N_COLUMNS, reconstruct.origin)
    assert relative_error(reconstruct.preview([0])[:, mask], wanted[:, mask]) < 0.02


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
@pytest.mark.parametrize("in_what_is_retained", [True, False])
def test_superseded_projections_leave_no_trace(order, in_what_is_retained, sinograms):
    broken = sinograms.clone()
    wrong = [0, 15, 16, 40, 74]
    broken[:, wrong] += 0.5
    kept = sinograms if in_what_is_retained else broken
    reconstruct = IncrementalGridrec(
        GEOMETRY, N_SLICES, retained=lambda projections: kept[:, projections]
    )
    half = len(order) // 2
    feed(reconstruct, broken, order[:half])
    for index in set(wrong) & set(order[:half].tolist()):
        reconstruct.replace(index, sinograms[:, index])
    feed(reconstruct, broken, order[half:])
    for index in set(wrong) & set(order[half:].tolist()):
        reconstruct.replace(index, sinograms[:, index])
    batch = Gridrec(GEOMETRY)(sinograms)
    assert torch.equal(reconstruct.result(), batch)
    # Twice superseded, and looked at in between.
    reconstruct.replace(3, broken[:, 4])
    assert not torch.equal(reconstruct.result(), batch)
    reconstruct.replace(3, sinograms[:, 3])
    assert torch.equal(reconstruct.result(), batch)


def test_without_what_is_retained_only_a_waiting_projection_is_replaced(sinograms):
    reconstruct = IncrementalGridrec(GEOMETRY, N_SLICES, block=16)
    feed(reconstruct, sinograms, range(40))
    reconstruct.replace(38, sinograms[:, 38])
    with pytest.raises(ReconstructionError, match="projection 20: can't be replaced.*retained="):
        reconstruct.replace(20, sinograms[:, 20])
    with pytest.raises(ReconstructionError, match="projection 50: .*arrived.*add"):
        reconstruct.replace(50, sinograms[:, 50])


def test_refuses_what_does_not_fit(sinograms):
    reconstruct = IncrementalGridrec(GEOMETRY, N_SLICES)
    with pytest.raises(ReconstructionError, match="none has arrived"):
        reconstruct.preview([0])
    reconstruct.add(0, sinograms[:, 0])
    with pytest.raises(ReconstructionError, match="projection 0: .*arrived before.*replace"):
        reconstruct.add(0, sinograms[:, 0])
    with pytest.raises(ReconstructionError, match="projection 75: .*from 0 to 74"):
        reconstruct.add(75, sinograms[:, 0])
    with pytest.raises(ReconstructionError, match=r"\(11, 64\).*\(10, 64\)"):
        reconstruct.add(1, sinograms[:10, 1])
    with pytest.raises(ReconstructionError, match="float64"):
        reconstruct.add(1, sinograms[:, 1].double())
    with pytest.raises(ReconstructionError, match="nan at slice 0, column 0"):
        reconstruct.add(1, torch.full((N_SLICES, N_COLUMNS), torch.nan))
    with pytest.raises(ReconstructionError, match="74 have not arrived .the first is 1.*preview"):
        reconstruct.result()
    assert reconstruct.arrived.sum() == 1


def test_refuses_retained_projections_that_do_not_fit(sinograms):
    reconstruct = IncrementalGridrec(
        GEOMETRY, N_SLICES, retained=lambda projections: sinograms[:, :3]
    )
    feed(reconstruct, sinograms, range(N_ANGLES))
    reconstruct.result()
    reconstruct.replace(5, sinograms[:, 5])
    with pytest.raises(ReconstructionError, match=r"projections 16 to 31.*\(11, 16, 64\)"):
        reconstruct.result()


def test_predicts_the_memory_of_its_state():
    geometry = ScanGeometry(EVEN, 250.0, 512)
    assert state_bytes(geometry) == pytest.approx(2.4e6, rel=0.02)
    shape = IncrementalGridrec(geometry, 1, block=1)._grid._states[0].shape
    assert 4 * np.prod(shape) == pytest.approx(state_bytes(geometry), rel=0.01)


@pytest.mark.parametrize(("name", "options"), [("incremental", []), ("gpu", ["--device", "cpu"])])
def test_benchmark_runs(name, options):
    done = run_python(str(BENCHMARKS / f"{name}.py"), "--quick", "--json", *options)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    keys = ["benchmark", "case", "method", "metric", "value", "unit"]
    assert len(rows) >= 5
    assert [list(row) for row in rows] == [keys] * len(rows)
    assert {row["benchmark"] for row in rows} == {name}
    assert all(np.isfinite(row["value"]) for row in rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device to measure")
def test_gpu_benchmark_says_that_there_is_no_gpu():
    done = run_python(str(BENCHMARKS / "gpu.py"), "--quick")
    assert done.stdout == ""
    assert "no CUDA device" in done.stderr


def test_gpu_benchmark_needs_numpy_and_torch_only():
    code = (
        "import sys, runpy; sys.modules['pydantic'] = sys.modules['h5py'] = None; "
        f"runpy.run_path({str(BENCHMARKS / 'gpu.py')!r}); "
        "import tomogan_bluesky.recon.incremental"
    )
    run_python("-c", code)


def run_python(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=environment,
    )
