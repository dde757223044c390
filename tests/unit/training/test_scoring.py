"""Scores of methods on slices, and what is made of them."""

import numpy as np
import pytest

from tomogan_bluesky.training.continuity import jumps
from tomogan_bluesky.training.goals import BM3D_SPECTRUM, verdict_table, verdicts
from tomogan_bluesky.training.metrics import psnr, ssim
from tomogan_bluesky.training.pinned import PinnedSlices
from tomogan_bluesky.training.scoring import NOISY, Result, score, table


@pytest.fixture
def slices():
    rng = np.random.default_rng(0)
    clean = rng.random((3, 32, 32), dtype=np.float32)

    def noisy(sigma):
        return clean + sigma * rng.standard_normal(clean.shape, dtype=np.float32)

    return PinnedSlices(("foam", "foam", "shale"), clean, noisy(0.1), {0.25: noisy(0.2)})


def test_scores_are_of_each_slice_against_both_references(slices):
    images = slices.noisy[0.25]
    result = score("256", 0.25, "a", images, slices)
    expected = [psnr(a, b) for a, b in zip(images, slices.clean, strict=True)]
    np.testing.assert_array_equal(result.scores["psnr"], expected)
    expected = [ssim(a, b) for a, b in zip(images, slices.full_dose, strict=True)]
    np.testing.assert_array_equal(result.scores["ssim_full"], expected)
    assert result.mean("psnr", "foam") == pytest.approx(result.scores["psnr"][:2].mean())


def test_each_row_shows_the_noisy_figures(slices):
    noisy = score("256", 0.25, NOISY, slices.noisy[0.25], slices)
    better = (slices.noisy[0.25] + slices.clean) / 2
    result = score("256", 0.25, "half", better, slices, ms_a_slice=12)
    head, first, second, *kinds = table([noisy, result], by_family=True).splitlines()
    row = next(line for line in kinds if "half" in line)
    for name in ("psnr", "ssim", "edge_fidelity", "edge_f1"):
        digits = 2 if name == "psnr" else 4
        assert f"{result.mean(name):.{digits}f} ({noisy.mean(name):.{digits}f})" in row
    assert "6.02" in row  # half the error
    assert row.endswith("12")
    assert sum("foam" in line for line in table([noisy, result], True).splitlines()) == 2
    assert not any("foam" in line for line in table([noisy, result]).splitlines())


def test_neighbours_are_scored_for_their_jumps_and_ends_are_left_out(slices):
    twice = [np.concatenate([a, a]) for a in (slices.clean, slices.full_dose, slices.noisy[0.25])]
    clean, full, noisy = twice
    volumes = PinnedSlices(("a",) * 3 + ("b",) * 3, clean, full, {}, adjacent=True)
    result = score("v", 0.25, "n", noisy, volumes)
    expected = [jumps(noisy[:3], clean[:3]), jumps(noisy[3:], clean[3:])]
    np.testing.assert_array_equal(result.scores["jumps"], np.repeat(expected, 3))
    assert f"{expected[0]:.1e}" in table([result])
    # An error that neighbours share is none here, and one at an end is not looked at.
    spoilt = clean + np.float32(0.1)
    spoilt[::3] = 1
    middle = PinnedSlices(("a",) * 3 + ("b",) * 3, clean, full, {}, adjacent=True, margin=1)
    assert score("v", 0.25, "n", spoilt, middle).mean("psnr") == pytest.approx(20, abs=0.1)
    assert middle.scored() == [slice(1, 2), slice(4, 5)]
    assert "jumps" not in score("v", 0.25, "n", noisy, middle).scores  # of one slice there are none
    alone = score("256", 0.25, "n", slices.noisy[0.25], slices)
    assert "jumps" not in alone.scores
    assert "jumps" not in table([alone])


def fixed(method, dose, value, families=("a", "b")):
    names = ("psnr", "ssim", "edge_fidelity", "edge_f1", "frc", "psnr_full", "ssim_full")
    scores = {name: np.array(value, float) for name in names}
    return Result("256", dose, method, families, scores)


def test_verdicts_are_of_what_was_run_alone():
    results = [fixed(NOISY, 0.25, [1.0, 1.0]), fixed("net", 0.25, [8.0, 6.5])]
    found = {v.goal: v for v in verdicts(results, "net")}
    assert found["dose 0.25: psnr over noisy"].found == 6.25
    assert found["dose 0.25: psnr over noisy"].met
    assert not any("BM3D" in goal or "dose 1:" in goal for goal in found)
    results.append(fixed(BM3D_SPECTRUM, 0.25, [5.0, 6.6]))
    found = {v.goal: v for v in verdicts(results, "net")}
    assert found[f"dose 0.25: psnr over {BM3D_SPECTRUM}"].met
    worst = found[f"dose 0.25: psnr over {BM3D_SPECTRUM}, worst kind"]
    assert worst.found == pytest.approx(-0.1)
    assert not worst.met
    assert "MISSED" in verdict_table([worst])


def test_no_harm_is_asked_of_the_worst_slice():
    results = [fixed(NOISY, 1.0, [1.0, 1.0]), fixed("net", 1.0, [9.0, 0.5])]
    found = {v.goal: v for v in verdicts(results, "net")}
    assert found["dose 1: psnr over noisy"].met
    assert not found["dose 1: psnr over noisy, worst slice"].met
