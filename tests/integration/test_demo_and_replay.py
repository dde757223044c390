"""The demo, and its archived run through replay in a process of its own."""

import json
import logging
import subprocess
import sys

import numpy as np
import pytest

from tomogan_bluesky.cli import main
from tomogan_bluesky.publish.server import serve_catalog

DEMO = ("--rows", "3", "--size", "64", "--angles", "91", "--seed", "5")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Folder of a small demo, and the last line that it printed, as JSON."""
    folder = tmp_path_factory.mktemp("demo")
    done = command("demo", "--output", str(folder), *DEMO, "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


def command(*args):
    return subprocess.run(
        [sys.executable, "-m", "tomogan_bluesky", *args],
        capture_output=True,
        text=True,
        check=False,
    )


def volumes(folder, uid):
    with serve_catalog(folder) as server:
        stream = server.client()[uid]["primary"]
        return {name: stream[name].read() for name in ("reconstruction", "denoised")}


def test_the_demo_says_what_it_did(demo):
    folder, result = demo
    assert result["frames"] == {
        "expected": 91,
        "used": 91,
        "superseded": 0,
        "missing": 0,
        "rejected": {},
    }
    for score in ("psnr_{}_db", "ssim_{}"):
        for what in ("reconstruction", "filtered", "denoised", "noise_free"):
            assert np.isfinite(result[score.format(what)])
    assert result["psnr_denoised_db"] > result["psnr_reconstruction_db"]
    assert {"raw_uid", "derived_uid", "seconds"} <= set(result)
    assert (folder / "comparison.png").stat().st_size > 10_000


def test_the_demo_leaves_a_catalog_with_both_volumes(demo):
    folder, result = demo
    found = volumes(folder, result["derived_uid"])
    for volume in found.values():
        assert volume.shape == (3, 64, 64)
        assert volume.dtype == np.float32
        assert np.isfinite(volume).all()


def test_replay_in_a_fresh_process_into_an_empty_catalog_gives_the_same_bits(demo, tmp_path):
    folder, result = demo
    done = command(
        "replay", result["raw_uid"][:8], "--catalog", str(folder), "--into", str(tmp_path), "--json"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["raw_uid"] == result["raw_uid"]
    assert report["derived_uid"] == result["derived_uid"]
    live, replayed = (
        volumes(folder, result["derived_uid"]),
        volumes(tmp_path, report["derived_uid"]),
    )
    for name, volume in live.items():
        np.testing.assert_array_equal(volume, replayed[name])


def test_a_second_replay_finds_the_first_and_again_makes_a_new_attempt(demo, capsys):
    folder, result = demo
    catalog = ("--catalog", str(folder))
    assert main(["replay", "-1", *catalog, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["already_done"]
    assert report["derived_uid"] == result["derived_uid"]

    assert main(["replay", "-1", *catalog, "--again", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert not report["already_done"]
    assert report["derived_uid"] != result["derived_uid"]
    assert main(["export", report["derived_uid"], *catalog, "--to", str(folder / "tiff")]) == 0


def test_removing_takes_the_files_along(demo, tmp_path, capsys):
    folder, result = demo
    into = ("--catalog", str(folder), "--into", str(tmp_path))
    assert main(["replay", "-1", *into, "--model", "none", "--rows", "0:2"]) == 0
    assert list(tmp_path.rglob("*.h5"))
    capsys.readouterr()
    assert main(["replay", "-1", *into, "--remove"]) == 0
    assert "removed" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.h5"))


def test_a_run_on_a_server_is_replayed_and_exported_by_its_address(
    demo, tmp_path, capsys, monkeypatch
):
    folder, _ = demo
    into = tmp_path / "new"
    with serve_catalog(folder) as server:
        monkeypatch.setenv("TILED_API_KEY", server.api_key)
        there = ("--catalog", server.uri)
        less = ("--model", "none", "--rows", "0:2")
        assert main(["replay", "-1", *there, "--into", str(into), *less]) == 0
        assert main(["export", "-1", *there, "--to", str(tmp_path / "tiff")]) == 0
        assert main(["replay", "-1", *there, "--remove"]) == 2
        assert "expected the folder of a catalog" in capsys.readouterr().err
    assert list(into.rglob("*.h5"))
    assert len(list((tmp_path / "tiff").iterdir())) == 3


def test_only_one_run_is_removed_at_a_time(demo, capsys):
    catalog = ("--catalog", str(demo[0]))
    assert main(["replay", "--query", "plan_name=tomo_scan", *catalog, "--remove"]) == 2
    assert "expected one run" in capsys.readouterr().err


def test_a_derived_run_is_not_replayed(demo, capsys):
    folder, result = demo
    assert main(["replay", result["derived_uid"], "--catalog", str(folder)]) == 1
    assert f"derived from run {result['raw_uid']}" in capsys.readouterr().err


def test_a_run_that_is_not_there(demo, capsys):
    assert main(["replay", "nosuchrun", "--catalog", str(demo[0])]) == 1
    assert "nosuchrun" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (("--filter", "sharp"), 2),  # whatever the scan
        (("--rows", "5:2"), 2),
        (("--model", "no-such-model"), 1),
        (("--rows", "0:99"), 1),  # of this scan
    ],
)
def test_wrong_settings_are_named_once(demo, tmp_path, wrong, code, capsys, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])  # those of the command line, not those of pytest
    replay = ["replay", "-1", "--catalog", str(demo[0]), "--into", str(tmp_path)]
    assert main([*replay, *wrong]) == code
    told = capsys.readouterr().err
    assert told.count(wrong[1].replace("0:99", "got 0:99").replace("5:2", "(5, 2)")) == 1, told
    assert "Traceback" not in told


def test_a_mistyped_model_is_known_before_the_scan(tmp_path, capsys):
    assert main(["demo", "--model", "no-such-model", "--output", str(tmp_path / "demo")]) == 1
    assert capsys.readouterr().err.count("no-such-model") == 1
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("command", ["replay", "doctor", "export"])
def test_a_mistyped_catalog_is_not_made(command, tmp_path, capsys):
    missing = tmp_path / "typo"
    to = ["--to", str(tmp_path)] if command == "export" else []
    assert main([command, "-1", "--catalog", str(missing), *to]) == 1
    assert "typo: expected the folder of a catalog" in capsys.readouterr().err
    assert not missing.exists()


def test_usage_errors_exit_with_2(capsys):
    for wrong in (["replay"], ["replay", "-1", "--catalog", "x", "--rows", "five"], ["nonsense"]):
        with pytest.raises(SystemExit) as caught:
            main(wrong)
        assert caught.value.code == 2
    capsys.readouterr()


def test_every_command_has_help_with_examples(capsys):
    for name in ("demo", "serve-catalog", "ingest", "replay", "export", "train"):
        with pytest.raises(SystemExit) as caught:
            main([name, "--help"])
        assert caught.value.code == 0
        assert "examples:" in capsys.readouterr().out
