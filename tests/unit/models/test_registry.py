"""A folder of models, one in use for each instrument."""

import json
from types import SimpleNamespace

import pytest
import torch
from generators import CARD

from tomogan_bluesky.cli import main
from tomogan_bluesky.config import DEFAULT_MODEL, ReconstructionConfig, Settings
from tomogan_bluesky.errors import ModelError, ModelNotFoundError
from tomogan_bluesky.models.artifact import export_model, load_model
from tomogan_bluesky.models.files import model_sha256
from tomogan_bluesky.models.generator import build_generator
from tomogan_bluesky.models.registry import INDEX, Instrument, Registry
from tomogan_bluesky.run.engine import Engine

HEX = Instrument(beamline="HEX", energy_kev=25.0)


@pytest.fixture
def models(tmp_path):
    """Two model files that differ."""
    paths = []
    for name in ("first", "second"):
        torch.manual_seed(len(paths))
        path = tmp_path / f"{name}.ts"
        export_model(build_generator("unet4", base=4), CARD.model_copy(update={"name": name}), path)
        paths.append(path)
    return paths


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "registry")


def test_the_last_promoted_is_used_and_one_can_go_back(registry, models):
    for model in models:
        registry.promote(model, HEX)
    path, sha256 = registry.resolve(HEX)
    assert sha256 == model_sha256(models[1]) == model_sha256(path)
    registry.rollback(HEX.fingerprint[:4])
    assert registry.resolve(HEX)[1] == model_sha256(models[0])
    with pytest.raises(ModelNotFoundError, match="none to go back to"):
        registry.rollback(HEX.fingerprint)
    assert Registry(registry.folder).slots() == registry.slots()  # on disk


def test_a_folder_that_cannot_be_made_is_said(models, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="expected the folder of a registry, got: .*directory"):
        Registry(tmp_path / "file" / "registry").promote(models[0], HEX)


def test_the_model_that_knows_most_of_a_scan_is_taken(registry, models):
    registry.promote(models[0], Instrument(beamline="HEX"))
    registry.promote(models[1], HEX)
    start = {"beamline_id": "HEX", "energy_kev": 25.1, "detectors": ["oryx"], "exposure_s": 0.1}
    scan = Instrument.of_run(start, ReconstructionConfig())
    assert (scan.detector, scan.exposure_s, scan.method) == ("oryx", 0.1, "gridrec")
    assert registry.resolve(scan)[1] == model_sha256(models[1])
    other = Instrument.of_run({**start, "energy_kev": 40.0}, ReconstructionConfig())
    assert registry.resolve(other)[1] == model_sha256(models[0])
    unknown = Instrument.of_run({}, ReconstructionConfig())
    with pytest.raises(ModelNotFoundError, match="beamline=HEX, energy_kev=25"):
        registry.resolve(unknown)
    registry.promote(models[0], Instrument(energy_kev=25.0))
    registry.promote(models[0], Instrument(beamline="HEX"))
    both = Instrument(beamline="HEX", energy_kev=25.0)
    registry.resolve(both)  # two settings are more than one
    registry.promote(models[0], Instrument(detector="oryx"))
    with pytest.raises(ModelNotFoundError, match="there are 2 that do"):
        registry.resolve(both.model_copy(update={"energy_kev": 30.0, "detector": "oryx"}))


def test_a_model_of_a_sharper_filter_is_taken_where_none_is_of_the_same(registry, models):
    registry.promote(models[0], HEX.model_copy(update={"filter": "ramlak"}))
    start = {"beamline_id": "HEX", "energy_kev": 25.0}
    hann = Instrument.of_run(start, ReconstructionConfig(filter="hann"))
    assert registry.resolve(hann)[1] == model_sha256(models[0])
    registry.promote(models[1], HEX)  # of any filter
    ramlak = Instrument.of_run(start, ReconstructionConfig(filter="ramlak"))
    assert registry.resolve(ramlak)[1] == model_sha256(models[0])
    unfiltered = Instrument.of_run(start, ReconstructionConfig(filter="none"))
    assert registry.resolve(unfiltered)[1] == model_sha256(models[1])
    assert HEX.model_copy(update={"filter": "parzen"}).fits(hann) is None


def test_a_shipped_model_is_promoted_by_its_name(registry):
    registry.promote(DEFAULT_MODEL, HEX)
    path, sha256 = registry.resolve(HEX)
    assert sha256 == model_sha256(DEFAULT_MODEL)
    assert load_model(path, sha256=sha256)[1].name == DEFAULT_MODEL


def test_a_file_that_is_not_what_it_was_is_not_loaded(registry, models, monkeypatch):
    registry.promote(models[0], HEX)
    path, _ = registry.resolve(HEX)
    path.write_bytes(models[1].read_bytes())  # a sound model, but another
    loaded = []
    monkeypatch.setattr("tomogan_bluesky.models.artifact.read", lambda *a: loaded.append(a))
    engine = Engine(SimpleNamespace(find_run=None), f"registry:{registry.folder}", Settings())
    with pytest.raises(ModelError, match="it was altered, and was not loaded"):
        engine.denoiser({"beamline_id": "HEX", "energy_kev": 25.0})
    (problem,) = registry.verify().values()
    assert "altered" in problem
    assert not loaded  # code was not run to find out
    path.unlink()
    (problem,) = registry.verify().values()
    assert "no model file" in problem


def test_the_engine_changes_over_between_runs_alone(registry, models):
    registry.promote(models[0], HEX)
    engine = Engine(
        SimpleNamespace(find_run=None), f"registry:{registry.folder}", Settings(), device="cpu"
    )
    start = {"beamline_id": "HEX", "energy_kev": 25.0}
    assert engine.denoiser() is None  # before there is a run
    first = engine.denoiser(start)
    assert first.card.name == "first"
    registry.promote(models[1], HEX)
    assert first.card.name == "first"  # what a run holds stays what it is
    second = engine.denoiser(start)
    assert second.card.name == "second"
    assert engine.denoiser(start) is second  # loaded once
    assert second.sha256 == model_sha256(models[1])


def test_refuses_models_that_do_not_fit_and_indices_that_are_none(registry, models, tmp_path):
    with pytest.raises(ModelError, match="filter 'hann', got one of 'ramlak'"):
        registry.promote(models[0], HEX.model_copy(update={"filter": "hann"}))
    with pytest.raises(ModelNotFoundError, match="no registry in"):
        registry.resolve(HEX)
    (tmp_path / "broken.ts").write_text("no model")
    with pytest.raises(ModelError):
        registry.promote(tmp_path / "broken.ts", HEX)
    registry.promote(models[0], HEX)
    (registry.folder / INDEX).write_text("{")
    with pytest.raises(ModelError, match="can't be used"):
        registry.slots()


def test_commands(registry, models, capsys):
    def run(*words):
        code = main(["models", *words, "--registry", str(registry.folder)])
        return code, capsys.readouterr()

    instrument = ["--beamline", "HEX", "--energy-kev", "25", "--pixel-size-um", "1.1"]
    for model in models:
        code, said = run("promote", str(model), *instrument)
        assert code == 0
    fingerprint = said.out.split()[0]
    assert "second" in said.out
    _, said = run("list", "--json")
    (line,) = map(json.loads, said.out.splitlines())
    assert line["fingerprint"] == fingerprint
    assert [p["name"] for p in line["history"]] == ["first", "second"]
    assert line["instrument"]["filter"] == "ramlak"  # the model's own
    _, said = run("show", fingerprint[:5])
    assert '"network": "unet4(base=4)"' in said.out
    assert run("verify")[0] == 0
    _, said = run("rollback", fingerprint)
    assert "first" in said.out
    registry.path(registry.find(fingerprint).history[-1]).write_text("gone")
    code, said = run("verify")
    assert code == 1
    assert "PROBLEM" in said.out
    code, said = run("show", "zz")
    assert code == 1
    assert fingerprint in said.err
