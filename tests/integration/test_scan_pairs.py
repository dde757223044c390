"""Pairs of archived scans, in each mode, and the command that learns from them."""

import argparse
import json
import shlex
from uuid import uuid4

import numpy as np
import pytest
import torch
from generators import export_untrained
from paired_doses import scan_at_two_doses
from scans import scan_documents

from tomogan_bluesky.cli import main
from tomogan_bluesky.commands import train
from tomogan_bluesky.errors import ConfigurationError, NoScansError
from tomogan_bluesky.models.artifact import load_model
from tomogan_bluesky.publish.query import ScanQuery
from tomogan_bluesky.publish.tiled_publisher import TiledPublisher
from tomogan_bluesky.recon.beam import Beam
from tomogan_bluesky.recon.phantoms import make_phantom
from tomogan_bluesky.sim.beamline import SimBeamline
from tomogan_bluesky.training.catalogs import ScanReader
from tomogan_bluesky.training.noise_profile import relative_noise
from tomogan_bluesky.training.scan_pairs import ScanPairs, some_slices, split_by_sample

ANGLES = np.linspace(0, 180, 25)
LEAST_NOISE = relative_noise(48, 0.25 * 4e3, 25)  # of the scans at a quarter of the dose


@pytest.fixture(scope="module")
def technique():
    """A start key by which the scans of this module are found."""
    return f"scans {uuid4()}"


@pytest.fixture(scope="module")
def archive(catalog, technique):
    """Two samples at two doses, in the catalog of all tests; runs by (sample, dose)."""
    client = catalog.client()
    runs = {}
    for name, seed in (("one", 1), ("two", 2)):
        phantom = make_phantom("foam", 96, np.random.default_rng(seed), 3)
        beam = Beam(4e3, 1.0, electronic=2.0, seed=seed)
        beamline = SimBeamline(phantom, ANGLES, beam, rotation_centre=24.0)
        md = {"sample": {"name": name}, "technique": technique}
        uids = scan_at_two_doses(beamline, ANGLES, client, md)
        runs |= {(name, dose): uid for dose, uid in uids.items()}
    return runs


@pytest.fixture
def source(client, tmp_path):
    return ScanPairs(ScanReader(client), tmp_path / "pairs")


def test_paired_doses_are_reconstructed_once_and_split_by_sample(
    archive, client, source, technique, monkeypatch
):
    query = ScanQuery(where={"technique": technique})
    found = source.supervised(query)
    assert {f.uids for f in found} == {
        (archive[name, 0.25], archive[name, 1.0]) for name in ("one", "two")
    }
    first = found[0]
    full = ScanReader(client).read(client[first.uids[1]])
    low = ScanReader(client).read(client[first.uids[0]], full.rotation_centre)
    assert torch.equal(first.pairs.target, full.slices)
    assert torch.equal(first.pairs.noisy[:, 0], low.slices)
    assert first.pairs.neighbours(0, 3) == [1, 0, 1]
    # Of 4 flats with 144 pixels each: to some 10 %.
    assert first.detector.gain == pytest.approx(1, rel=0.3)
    assert first.detector.flat_electrons == pytest.approx(4e3, rel=0.3)
    assert first.detector.blur_px == 0
    # A second time nothing is read from the catalog but the start documents.
    monkeypatch.setattr(ScanReader, "open", None)
    again = source.supervised(query)
    assert sorted(f.uids for f in again) == sorted(f.uids for f in found)
    assert torch.equal(again[0].pairs.noisy, found[0].pairs.noisy)

    learned, kept = split_by_sample(found)
    assert {f.sample for f in learned}.isdisjoint({f.sample for f in kept})
    assert len(some_slices(kept)) == 3
    assert split_by_sample(found[:1]) == (found[:1], [])


def test_one_scan_teaches_by_its_own_projections(archive, source, technique):
    query = ScanQuery(sample="one", dose=0.25, where={"technique": technique})
    (even_odd,) = source.single(query)
    assert even_odd.uids == (archive["one", 0.25],)
    noisy, target = even_odd.pairs.noisy[:, 0], even_odd.pairs.target
    assert len(target) == 6
    torch.testing.assert_close(noisy[:3], target[3:])  # even teaches odd
    torch.testing.assert_close(noisy[3:], target[:3])  # and odd even
    assert even_odd.least_noise == pytest.approx(LEAST_NOISE, rel=0.2)  # the whole scan's
    (four,) = source.single(query, splits=4)
    assert len(four.pairs) == 12
    assert four.pairs.dose[0, 0].item() == pytest.approx(0.25 * 3 / 4)


def test_a_full_dose_scan_is_divided_into_honest_ones(archive, source, technique):
    query = ScanQuery(sample="one", dose=1.0, where={"technique": technique})
    (divided,) = source.low_dose(query, [0.25])
    paired = source.supervised(ScanQuery(sample="one", where={"technique": technique}))[0]
    for pairs in (divided, paired):
        assert pairs.least_noise == pytest.approx(LEAST_NOISE, rel=0.2)
    # As noisy as a scan that was taken at that dose, about the same sample.
    ratio = divided.pairs.noise.mean() / paired.pairs.noise.mean()
    assert 0.8 < ratio < 1.2
    errors = [(p.noisy[:, 0] - p.target)[:, 12:-12, 12:-12] for p in (divided.pairs, paired.pairs)]
    assert 0.8 < errors[0].std() / errors[1].std() < 1.3
    (halves,) = source.low_dose(query, [0.5, 0.5])
    assert halves.least_noise == pytest.approx(LEAST_NOISE / 2, rel=0.2)  # for the scan itself
    assert not torch.equal(halves.pairs.noisy[:3], halves.pairs.noisy[3:])  # divided anew
    with pytest.raises(ConfigurationError, match="between 0 and 1"):
        source.low_dose(query, [1.0])


def test_two_scans_teach_each_other(archive, client, technique, tmp_path, monkeypatch):
    source = ScanPairs(ScanReader(client), tmp_path)
    with pytest.raises(NoScansError, match="no second scan of the same sample and dose"):
        source.noise2noise(ScanQuery(where={"technique": technique}))
    # As if both samples were one.
    monkeypatch.setattr("tomogan_bluesky.training.scan_pairs._sample_of", lambda start: "one")
    (both,) = source.noise2noise(ScanQuery(dose=0.25, where={"technique": technique}))
    assert set(both.uids) == {archive["one", 0.25], archive["two", 0.25]}
    noisy, target = both.pairs.noisy[:, 0], both.pairs.target
    assert torch.equal(noisy[:3], target[3:])
    assert torch.equal(noisy[3:], target[:3])


def test_what_cannot_be_used_is_listed_and_the_rest_is(archive, client, source, technique):
    publish = TiledPublisher(client, batch_size=100)
    documents = scan_documents(flats=0, md={"sample": "broken", "technique": technique})
    for name, doc in documents:
        publish(name, doc)
    broken = documents[0][1]["uid"]
    found = source.single(ScanQuery(where={"technique": technique}))
    assert {f.uids[0] for f in found} == set(archive.values())
    (rejection,) = source.rejected
    assert rejection.uid == broken
    assert "flat" in rejection.reason
    with pytest.raises(NoScansError, match=f"got none: {broken}"):
        source.single(ScanQuery(sample="broken", where={"technique": technique}))
    folder = client.create_container("no run")  # which a catalog may hold, too
    with pytest.raises(NoScansError, match="an empty one"):
        source.single(ScanQuery())
    folder.delete()


def run(text):
    parser = argparse.ArgumentParser()
    train.add_parser(parser.add_subparsers())
    return train.run(parser.parse_args(["train", *shlex.split(text)]))


SMALL = "--steps 2 --base 4 --batch 2 --crop 32 --threads 1 --json"


def test_train_learns_from_paired_doses_and_the_card_says_so(
    archive, catalog, technique, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("TILED_API_KEY", catalog.api_key)
    where = f"--tiled {catalog.uri} --query 'technique={technique}'"
    assert run(f"{where} {SMALL} --output {tmp_path}") == 0
    card = json.loads(capsys.readouterr().out)
    training = card["training"]
    assert training["mode"] == "supervised"
    assert set(training["runs"]) | set(training["validation_runs"]) == set(archive.values())
    assert card["dose_range"] == [0.25, 0.25]
    assert card["detector"]["gain"] == pytest.approx(1, rel=0.3)
    assert card["least_noise"] == pytest.approx(LEAST_NOISE, rel=0.2)
    assert "psnr_db_noisy_at_0.25" in card["metrics"]
    assert f"--query 'technique={technique}'" in card["training_command"]
    assert load_model(tmp_path / "model.ts")[1].name == "my-model"


def test_train_takes_single_scans_where_there_are_no_pairs(
    archive, catalog, technique, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("TILED_API_KEY", catalog.api_key)
    uid = archive["one", 0.25]
    where = f"--tiled {catalog.uri} --query uid={uid}"
    assert run(f"{where} {SMALL} --output {tmp_path}") == 0
    captured = capsys.readouterr()
    card = json.loads(captured.out)
    assert card["training"]["mode"] == "noise2inverse"
    assert card["training"]["runs"] == [uid]
    assert card["metrics"] == {}
    assert "no paired doses" in captured.err
    assert "nothing is kept back" in captured.err
    # Asked for pairs, it says why there are none.
    with pytest.raises(NoScansError, match=f"{uid}: there is no full-dose scan"):
        run(f"{where} --mode supervised {SMALL} --output {tmp_path / 'pairs'}")


def test_finetuning_says_where_the_reconstruction_is_another(
    archive, catalog, technique, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("TILED_API_KEY", catalog.api_key)
    model = export_untrained(tmp_path / "start.ts")
    profile = tmp_path / "tomogan.yml"
    profile.write_text("version: 1\nreconstruction: {filter: hann}\n")
    uid = archive["one", 0.25]
    small = SMALL.replace("--base 4 ", "")
    where = f"--tiled {catalog.uri} --query uid={uid} --mode noise2inverse --finetune {model}"
    assert run(f"{where} --profile {profile} {small} --output {tmp_path / 'out'}") == 0
    captured = capsys.readouterr()
    assert "slices of gridrec, filter 'ramlak', but these are of gridrec, filter 'hann'" in (
        captured.err
    )
    card = json.loads(captured.out)
    assert card["network"] == "unet4(base=4)"
    assert card["reconstruction"]["filter"] == "hann"
    first, last = card["training_command"].split("\n")
    assert first == "none", "what made the model that it began with"
    assert f"--finetune {model}" in last


def test_queries_that_are_none(tmp_path):
    for words, message in (
        ("walnut", "expected KEY=VALUE, .* got 'walnut'"),
        ("dose=much", "--query: dose"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            run(f"--catalog {tmp_path} --query {words} {SMALL} --output {tmp_path}")


def test_evaluate_scores_models_on_archived_scans(
    archive, catalog, technique, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("TILED_API_KEY", catalog.api_key)
    model = export_untrained(tmp_path / "idle.ts")
    words = f"evaluate {model} --tiled {catalog.uri} --json --query technique='{technique}'"
    assert main(shlex.split(f"{words} sample=one")) == 0
    noisy, idle = map(json.loads, capsys.readouterr().out.splitlines())
    assert noisy["set"] == archive["one", 0.25][:8]
    assert (noisy["dose"], noisy["slices"]) == (0.25, 3)
    assert idle["psnr"] == pytest.approx(noisy["psnr"], abs=1e-3)
    assert main(shlex.split(f"{words} sample=one dose=1.0")) == 0
    (noisy, _) = map(json.loads, capsys.readouterr().out.splitlines())
    assert noisy["set"].endswith("even against odd projections")
    assert noisy["dose"] == 1.0
