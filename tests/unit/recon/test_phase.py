import math
import warnings

import numpy as np
import pytest
import torch

from tomogan_bluesky.errors import ReconstructionError
from tomogan_bluesky.recon.phase import reach, retrieve_phase

SETUP = {"pixel_size": 1e-4, "dist": 20.0, "energy": 25.0, "alpha": 5e-3}


@pytest.fixture(scope="module")
def frames():
    """Smooth random transmission, (row, angle, column)."""
    steps = np.random.default_rng(0).normal(size=(60, 2, 101))
    return torch.from_numpy(np.exp(-1e-3 * steps.cumsum(0).cumsum(2)).astype(np.float32))


@pytest.fixture(scope="module")
def tomopy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TomoPy warns of optional libraries when imported
        return pytest.importorskip("tomopy", reason="TomoPy is not importable")


def test_a_wave_is_damped_by_the_formula():
    cycles_y, cycles_x, shape = 3, 5, (64, 128)
    y, x = np.indices(shape)
    wave = np.cos(2 * np.pi * (cycles_y * y / shape[0] + cycles_x * x / shape[1]) + 0.4)
    frame = torch.from_numpy((1 + 0.1 * wave).astype(np.float32))[:, None]
    retrieved = retrieve_phase(frame, **SETUP, pad=False)
    frequency = np.hypot(cycles_y / shape[0], cycles_x / shape[1]) / SETUP["pixel_size"]
    wavelength = 12.39842e-8 / SETUP["energy"]  # cm
    gain = 1 / (1 + wavelength * SETUP["dist"] * frequency**2 / (4 * np.pi * SETUP["alpha"]))
    np.testing.assert_allclose(retrieved[:, 0], 1 + 0.1 * gain * wave, atol=1e-6)


def test_is_tomopys_but_for_where_the_filter_is_sampled(frames, tomopy):
    """Half a frequency beside, it also takes some of the mean away, which is put back here."""
    theirs = tomopy.retrieve_phase(frames.permute(1, 0, 2).numpy().copy(), **SETUP, ncore=1)
    even = np.ones(theirs.shape, np.float32)
    mean = tomopy.retrieve_phase(even, **SETUP, ncore=1).mean()
    assert 0.99 < mean < 0.999
    theirs /= mean
    ours = retrieve_phase(frames, **SETUP).permute(1, 0, 2).numpy()
    changed = np.abs(theirs - frames.permute(1, 0, 2).numpy()).max()
    assert np.abs(ours - theirs).max() < 5e-3 * changed


def test_even_illumination_stays():
    retrieved = retrieve_phase(torch.full((7, 2, 30), 0.7), **SETUP)
    torch.testing.assert_close(retrieved, torch.full((7, 2, 30), 0.7))


def test_bits_do_not_depend_on_the_frames_beside(frames):
    together = retrieve_phase(frames, **SETUP)
    alone = [retrieve_phase(frames[:, i : i + 1], **SETUP) for i in range(2)]
    assert torch.equal(torch.cat(alone, dim=1), together)


def test_rows_beyond_reach_have_no_influence():
    rows = reach(**SETUP)
    assert 1 < rows < 25
    frames = torch.ones(60, 1, 40)
    frames[: 30 - rows] = 0
    assert retrieve_phase(frames, **SETUP)[30:].min() > 1 - 2e-3
    frames[: 30 - rows // 4] = 0
    assert retrieve_phase(frames, **SETUP)[30:].min() < 1 - 2e-2
    assert reach(**SETUP, precision=1e-6) == pytest.approx(
        rows * math.log(2e-6) / math.log(2e-3), abs=1
    )


def test_refuses_what_makes_no_sense(frames):
    for name in SETUP:
        for value in (0.0, -1.0, float("nan"), float("inf")):
            with pytest.raises(ReconstructionError, match=f"a positive {name}"):
                retrieve_phase(frames, **{**SETUP, name: value})
    with pytest.raises(ReconstructionError, match=r"got torch.float64 \(60, 2, 101\)"):
        retrieve_phase(frames.double())
    broken = frames.clone()
    broken[4, 1, 3] = torch.nan
    with pytest.raises(ReconstructionError, match="nan at row 4, angle 1, column 3"):
        retrieve_phase(broken)
