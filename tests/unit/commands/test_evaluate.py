"""`tomogan-bluesky evaluate` on small pinned sets."""

import json

import pytest
from generators import export_deep, export_uncertain, export_untrained

from tomogan_bluesky.cli import main
from tomogan_bluesky.training import pinned


@pytest.fixture(autouse=True)
def small_sets(monkeypatch):
    recipe = pinned.PINNED_SETS["256"].model_copy(update={"size": 48, "n_angles": 60})
    foreign = pinned.PINNED_SETS["256-foreign"].model_copy(update={"size": 48, "n_angles": 60})
    small = {"256": recipe, "256-foreign": foreign}
    volumes = pinned.PINNED_SETS["256-volumes"].model_copy(update={"size": 48, "n_angles": 60})
    monkeypatch.setattr(pinned, "PINNED_SETS", small | {"256-volumes": volumes})


def test_a_model_beside_the_noisy_slices(tmp_path, capsys):
    model = export_untrained(tmp_path / "a.ts")
    words = ["evaluate", str(model), "--slices", "1", "--doses", "0.25", "1", "--json"]
    assert main([*words, "--set", "256", "256-foreign"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    rows = [line for line in lines if "psnr" in line]
    assert {(row["set"], row["dose"], row["method"]) for row in rows} == {
        (case, dose, method)
        for case in ("256", "256-foreign")
        for dose in (0.25, 1.0)
        for method in ("noisy", "untrained")
    }
    by = {(row["set"], row["dose"], row["method"]): row for row in rows}
    # An untrained model returns its input.
    idle, noisy = by["256", 0.25, "untrained"], by["256", 0.25, "noisy"]
    assert idle["psnr"] == pytest.approx(noisy["psnr"], abs=1e-3)
    assert idle["ms_a_slice"] > 0
    assert by["256", 1.0, "noisy"]["ssim"] > noisy["ssim"]
    goals = {line["goal"]: line for line in lines if "goal" in line}
    gain = goals["dose 0.25: psnr over noisy"]
    assert gain["found"] == pytest.approx(0, abs=1e-3)
    assert gain["needed"] == 6.0
    assert not gain["met"]


def test_slices_as_a_linear_back_projection_shows_them_are_scored_besides(tmp_path, capsys):
    model = export_untrained(tmp_path / "a.ts")
    words = ["evaluate", str(model), "--slices", "1", "--doses", "0.25", "--json"]
    assert main([*words, "--set", "256", "--linear"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    by = {(row["set"], row["method"]): row for row in lines if "psnr" in row}
    assert set(by) == {(s, m) for s in ("256", "256-linear") for m in ("noisy", "untrained")}
    assert by["256-linear", "noisy"]["psnr"] > by["256", "noisy"]["psnr"] + 1  # it is smoother


def test_models_of_several_slices_see_the_neighbours_of_a_volume(tmp_path, capsys):
    one, three = export_untrained(tmp_path / "a.ts"), export_deep(tmp_path / "b.ts", depth=3)
    words = ["evaluate", str(one), str(three), "--set", "256-volumes", "--slices", "2"]
    assert main([*words, "--doses", "0.25", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    noisy, flat, deep = rows
    assert {row["slices"] for row in rows} == {10}
    assert flat["jumps"] == pytest.approx(noisy["jumps"], rel=1e-3)
    assert 0 < deep["jumps"] != pytest.approx(noisy["jumps"], rel=1e-3)


def test_a_table_with_kinds_and_verdicts(tmp_path, capsys):
    model = export_untrained(tmp_path / "a.ts")
    words = ["evaluate", str(model), "--set", "256", "--slices", "1", "--doses", "0.25"]
    assert main([*words, "--by-kind"]) == 0
    text = capsys.readouterr().out
    for kind in ("foam", "shale", "spheres", "grains", "fibres"):
        assert kind in text
    assert "MISSED" in text


def test_models_of_one_name_are_told_apart_by_their_files(tmp_path, capsys):
    paths = [str(export_untrained(tmp_path / f"{name}.ts")) for name in "ab"]
    words = ["evaluate", *paths, "--set", "256", "--slices", "1", "--doses", "1", "--json"]
    assert main(words) == 0
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    assert {line["method"] for line in lines} == {"noisy", *paths}


def test_unknown_sets_and_models(tmp_path, capsys):
    assert main(["evaluate", "--set", "1024"]) == 2
    assert "expected one of 256" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "none.ts")]) == 1
    assert "no model file" in capsys.readouterr().err


def test_a_model_that_knows_its_uncertainty_is_asked_how_far_it_holds(tmp_path, capsys):
    model = export_uncertain(tmp_path / "a.ts")
    words = ["evaluate", str(model), "--set", "256", "--slices", "1", "--doses", "0.25"]
    assert main([*words, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (intervals,) = [line for line in lines if "intervals_of" in line]
    assert (intervals["set"], intervals["dose"]) == ("256", 0.25)
    assert intervals["intervals_of"] == "untrained"
    for name in ("coverage", "coverage_edges", "coverage_flat"):
        assert 0 < intervals[name] <= 1
    assert intervals["width"] > 0
