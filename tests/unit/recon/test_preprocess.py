import sys
import warnings

import numpy as np
import pytest
import torch

from tomogan_bluesky.config import PreprocessingConfig
from tomogan_bluesky.errors import (
    BackendUnavailableError,
    ConfigurationError,
    ReconstructionError,
)
from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.recon.binning import bin_frames, full_to_half_turn
from tomogan_bluesky.recon.flatfield import attenuation, transmission
from tomogan_bluesky.recon.phase import retrieve_phase
from tomogan_bluesky.recon.preprocess import Fields, Preprocessing
from tomogan_bluesky.recon.stripes import remove_all_stripes, remove_stripes_by_sorting
from tomogan_bluesky.recon.wavelets import remove_stripes_by_wavelets
from tomogan_bluesky.recon.zingers import remove_zingers

ROWS, ANGLES, COLUMNS = 41, 24, 48
THETA = np.arange(ANGLES) * 2 * np.pi / ANGLES
PHASE = {"pixel_size_um": 1.0, "distance_mm": 20.0, "energy_kev": 20.0, "alpha": 0.01}


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(300, 900, (ROWS, ANGLES, COLUMNS)).astype(np.uint16)


@pytest.fixture(scope="module")
def fields():
    rng = np.random.default_rng(1)
    dark, flats = rng.uniform(90, 110, (ROWS, COLUMNS)), rng.uniform(900, 1100, (2, ROWS, COLUMNS))
    late = np.linspace(0, 1, ANGLES)
    weights = np.stack((1 - late, late), axis=1)
    return Fields(*(a.astype(np.float32) for a in (dark, flats, weights)))


def run(frames, fields, first=0, last=None, slab_rows=64, **settings):
    """The rows [first, last) of the binned detector, and how many values were clamped."""
    preprocess = Preprocessing(PreprocessingConfig(**settings), fields, 1e-6)
    last = preprocess.n_rows if last is None else last
    parts, clamped = [], 0
    for cut in preprocess.cuts(first, last, slab_rows):
        start, stop = preprocess.recorded(*cut)
        geometry = ScanGeometry(THETA, 30.0, COLUMNS)
        lines, n_clamped = preprocess(frames[start:stop], *cut, geometry=geometry)
        parts.append(lines)
        clamped += n_clamped
    return torch.cat(parts), clamped


EVERYTHING = {
    "nothing": {},
    "zingers": {"zinger_difference": 200.0},
    "large zingers": {"zinger_difference": 150.0, "zinger_size": 7},
    "binning": {"binning": 3},
    "sorting": {"stripes": {"method": "sorting"}},
    "wavelet": {"stripes": {"method": "wavelet", "level": 3}},
    "all stripes": {"stripes": {"method": "all"}},
    "phase": {"phase": PHASE},
    "full turn": {"full_turn": True},
    "tilt": {"axis_tilt_deg": 3.0},
    "all together": {
        "zinger_difference": 200.0,
        "binning": 2,
        "stripes": {"method": "sorting"},
        "phase": PHASE,
        "full_turn": True,
    },
}


@pytest.mark.parametrize("settings", EVERYTHING.values(), ids=EVERYTHING)
def test_neither_slabs_nor_a_part_of_the_rows_change_a_bit(settings, frames, fields):
    whole, clamped = run(frames, fields, **settings)
    small, clamped_in_parts = run(frames, fields, slab_rows=3, **settings)
    assert torch.equal(small, whole)
    assert clamped_in_parts == clamped
    some, _ = run(frames, fields, first=5, last=12, slab_rows=4, **settings)
    assert torch.equal(some, whole[5:12])


@pytest.mark.parametrize("name", ["nothing", "zingers", "binning", "phase", "tilt"])
def test_a_projection_alone_has_the_bits_that_it_has_among_others(name, frames, fields):
    whole, _ = run(frames, fields, **EVERYTHING[name])
    preprocess = Preprocessing(PreprocessingConfig(**EVERYTHING[name]), fields, 1e-6)
    assert preprocess.by_projection
    for angle in (0, 7, ANGLES - 1):
        parts = []
        for cut in preprocess.cuts(0, preprocess.n_rows, 64):
            rows = slice(*preprocess.recorded(*cut))
            parts.append(preprocess(frames[rows, angle : angle + 1], *cut, [angle])[0])
        assert torch.equal(torch.cat(parts)[:, 0], whole[:, angle])


def test_the_steps_in_their_order(frames, fields):
    """The same by hand, on the whole detector."""
    clean = remove_zingers(torch.from_numpy(frames), 200.0, 5)[0]
    dark = remove_zingers(torch.from_numpy(fields.dark)[:, None], 200.0, 5)[0]
    flats = remove_zingers(torch.from_numpy(fields.flats).permute(1, 0, 2), 200.0, 5)[0]
    clean, dark, flats = (bin_frames(stack, 2) for stack in (clean, dark, flats))
    flat = torch.einsum("at,rtc->rac", torch.from_numpy(fields.weights), flats)
    wanted = remove_stripes_by_sorting(transmission(clean, dark[:, 0], flat), 7)
    wanted = retrieve_phase(wanted, 2e-4, 2.0, 20.0, 0.01)
    wanted, n_clamped = attenuation(wanted, 1e-6)
    wanted, theta, centre = full_to_half_turn(wanted, THETA, 14.75)
    settings = {
        "zinger_difference": 200.0,
        "zinger_size": 5,
        "binning": 2,
        "stripes": {"method": "sorting", "size": 7},
        "phase": PHASE,
        "full_turn": True,
    }
    got, clamped = run(frames, fields, **settings)
    assert clamped == n_clamped
    # The bands that phase retrieval works on end where the rest of the frame is next to nothing.
    torch.testing.assert_close(got, wanted, rtol=0, atol=4e-3)
    preprocess = Preprocessing(PreprocessingConfig(**settings), fields, 1e-6)
    geometry = preprocess.geometry(ScanGeometry(THETA, 30.0, COLUMNS))
    assert (geometry.rotation_centre, geometry.n_columns) == (centre, wanted.shape[2])
    np.testing.assert_array_equal(geometry.theta, theta)
    assert not preprocess.by_projection


@pytest.mark.parametrize(
    ("stripes", "by_hand"),
    [
        (
            {"method": "wavelet", "level": 2, "wavelet": "haar", "sigma": 1.0},
            lambda x: remove_stripes_by_wavelets(x, 2, "haar", 1.0),
        ),
        (
            {"method": "all", "snr": 2.0, "large_size": 31, "small_size": 5},
            lambda x: remove_all_stripes(x, 2.0, 31, 5),
        ),
    ],
    ids=["wavelet", "all"],
)
def test_stripes_are_removed_from_the_transmission(stripes, by_hand, frames, fields):
    one = Fields(fields.dark, fields.flats[:1], np.ones((ANGLES, 1), np.float32))
    dark, flat = torch.from_numpy(one.dark), torch.from_numpy(one.flats[0])
    wanted = attenuation(by_hand(transmission(torch.from_numpy(frames), dark, flat)), 1e-6)
    got = run(frames, one, stripes=stripes)
    assert torch.equal(got[0], wanted[0])
    assert got[1] == wanted[1]


def test_many_values_are_corrected_in_chunks(monkeypatch, frames, fields):
    whole, _ = run(frames, fields)
    monkeypatch.setattr("tomogan_bluesky.recon.preprocess._CHUNK", 5 * COLUMNS * ROWS)
    assert torch.equal(run(frames, fields)[0], whole)


def test_binned_rows_lie_within_those_that_are_asked_for(fields):
    preprocess = Preprocessing(PreprocessingConfig(binning=4), fields, 1e-6)
    assert preprocess.n_rows == 10
    assert preprocess.rows_within(0, 41) == (0, 10)
    assert preprocess.rows_within(5, 23) == (2, 5)
    assert [preprocess.recorded_row(row) for row in (0, 3)] == [0, 12]
    with pytest.raises(ConfigurationError, match=r"4 become one.*got rows 5:11.*binning"):
        preprocess.rows_within(5, 11)


def test_refuses_what_does_not_fit(frames, fields):
    preprocess = Preprocessing(PreprocessingConfig(), fields, 1e-6)
    with pytest.raises(ReconstructionError, match=r"rows 0:4: expected .*\(4, 24, 48\).*got \(3,"):
        preprocess(frames[:3], 0, 4)
    other = Fields(fields.dark, fields.flats[:, 1:], fields.weights)
    with pytest.raises(ReconstructionError, match=r"same detector, got \(41, 48\) and \(40, 48\)"):
        Preprocessing(PreprocessingConfig(), other, 1e-6)
    dark = fields.dark.copy()
    dark[3, 5] = np.nan
    with pytest.raises(ReconstructionError, match="dark: .*nan at row 3, column 5"):
        Preprocessing(PreprocessingConfig(), Fields(dark, fields.flats, fields.weights), 1e-6)
    with pytest.raises(ValueError, match="zinger_size: expected an odd number, got 4"):
        PreprocessingConfig(zinger_size=4)


@pytest.mark.tomopy
@pytest.mark.parametrize(
    ("function", "options"),
    [("remove_stripe_fw", {"level": 2, "sigma": 1.0}), ("remove_all_stripe", {"la_size": 11})],
)
def test_stripes_are_removed_by_tomopy_itself(function, options, frames, fields):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TomoPy warns of optional libraries when imported
        tomopy = pytest.importorskip("tomopy", reason="TomoPy is not importable")
    stripes = {"method": "tomopy", "function": function, "options": options}
    lines, _ = run(frames, fields, stripes=stripes)
    plain, _ = run(frames, fields)
    projections = np.ascontiguousarray(torch.exp(-plain).numpy().swapaxes(0, 1))
    wanted = getattr(tomopy, function)(projections, ncore=1, **options).swapaxes(0, 1)
    np.testing.assert_allclose(torch.exp(-lines), wanted, rtol=1e-4)
    assert not torch.allclose(lines, plain, rtol=1e-3)
    assert torch.equal(run(frames, fields, slab_rows=7, stripes=stripes)[0], lines)
    wrong = {**stripes, "options": {"sigmas": 1}}
    with pytest.raises(ConfigurationError, match=rf"{function} \(.*\), got 'sigmas'"):
        run(frames, fields, stripes=wrong)


def test_stripes_by_a_tomopy_that_is_absent(frames, fields, monkeypatch):
    monkeypatch.setitem(sys.modules, "tomopy", None)
    with pytest.raises(BackendUnavailableError, match=r"conda-forge.*stripes with another method"):
        run(frames, fields, stripes={"method": "tomopy", "function": "remove_stripe_fw"})
