"""Settings: profiles, plans, and what decides the pixels."""

from pathlib import Path

import pytest

from tomogan_bluesky.config import (
    PlanSettings,
    PreprocessingConfig,
    PublishingConfig,
    ReconstructionConfig,
    ScanConfig,
    Settings,
    load_profile,
    plan_settings,
)
from tomogan_bluesky.errors import ConfigurationError

PROFILES = sorted((Path(__file__).resolve().parents[2] / "profiles").glob("*/tomogan.yml"))


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.parent.name)
def test_every_profile_that_we_ship_is_valid(path):
    profile = load_profile(path)
    assert profile.version == 1
    assert profile.scan != ScanConfig(), "a profile that says nothing"
    assert sorted(path.parent.glob("startup/9*.py")), "no startup file beside it"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("version: 2", "version"),
        ("scan: {}", "version: expected it to be given, and it is missing"),
        ("version: 1\nscan: {angel_key: rot}", "scan.angel_key: there is no such setting"),
        ("version: 1\nscan: {angel_key: rot}", "did you mean scan.angle_key?"),
        ("version: 1\nrotation_centre: 3", "did you mean reconstruction.rotation_centre?"),
        ("version: 1\nreconstruction: {rotation_center: 3}", "reconstruction.rotation_centre?"),
        ("version: 1\nscann: {angle_key: rot}", "did you mean scan?"),
        ("version: 1\nscan: {angle_units: furlong}", "scan.angle_units"),
        ("version: 1\nscan: {rows: [5, 2]}", "rows"),
        ("version: [", "expected a profile in YAML"),
        ("just text", "just text"),
    ],
)
def test_a_wrong_profile_is_an_error_that_names_file_and_setting(tmp_path, content, named):
    path = tmp_path / "tomogan.yml"
    path.write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        load_profile(path)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_profile_that_is_not_there(tmp_path):
    with pytest.raises(ConfigurationError, match="nothing.yml"):
        load_profile(tmp_path / "nothing.yml")


def test_a_plan_speaks_for_its_own_scan():
    plan = plan_settings({"uid": "x", "tomogan": {"rows": [2, 4], "rotation_centre": 9.5}})
    assert plan == PlanSettings(rows=(2, 4), rotation_centre=9.5)
    assert plan_settings({"uid": "x"}) == PlanSettings()
    with pytest.raises(ConfigurationError, match="start key 'tomogan': row: "):
        plan_settings({"tomogan": {"row": 3}})
    with pytest.raises(ConfigurationError, match="rows: .*expected 0 <= first < last"):
        plan_settings({"tomogan": {"rows": [4, 2]}})
    with pytest.raises(ConfigurationError, match="binning: .*greater than or equal to 1"):
        plan_settings({"tomogan": {"binning": 0}})


def test_arguments_win_over_the_plan_which_wins_over_a_profile_and_defaults():
    plan = PlanSettings(rows=(2, 4), rotation_centre=9.5, binning=2)
    preprocessing = PreprocessingConfig(binning=4, zinger_difference=9.0)
    given = Settings(
        scan=ScanConfig(rows=(0, 1)),
        reconstruction=ReconstructionConfig(rotation_centre=1.0, preprocessing=preprocessing),
    )
    for settings, plan_wins, expected in (
        (given, False, ((0, 1), 1.0, 4)),
        (given, True, ((2, 4), 9.5, 2)),
        (Settings(), False, ((2, 4), 9.5, 2)),
    ):
        result = settings.for_plan(plan, plan_wins)
        found = result.reconstruction
        assert (
            result.scan.rows,
            found.rotation_centre,
            found.preprocessing.binning,
        ) == expected
        kept = settings.reconstruction.preprocessing.zinger_difference
        assert found.preprocessing.zinger_difference == kept
    assert Settings().for_plan(PlanSettings(), True) == Settings()


def test_the_digest_is_of_what_decides_the_pixels():
    base = Settings()
    assert base.digest() == Settings(scan=ScanConfig(memory_gib=1)).digest()
    assert base.digest() == Settings(publishing=PublishingConfig(directory="/x")).digest()
    assert base.digest() != Settings(scan=ScanConfig(rows=(0, 1))).digest()
    per_cm = PublishingConfig(units="1/cm", pixel_size_um=0.65)
    assert base.digest() != Settings(publishing=per_cm).digest()
    assert base.digest() != Settings(reconstruction=ReconstructionConfig(filter="shepp")).digest()


def test_the_folder_of_a_run_is_named_by_its_start_document():
    config = PublishingConfig(directory="/data/{data_session}/derived")
    assert config.for_run({"data_session": "pass-1"}).directory == Path("/data/pass-1/derived")
    with pytest.raises(ConfigurationError, match="data_session"):
        config.for_run({"uid": "x"})
    for escape in ("../../etc", "/etc", "..", ""):
        with pytest.raises(ConfigurationError, match="name of a folder"):
            config.for_run({"data_session": escape})
    assert PublishingConfig().for_run({}).directory is None


def test_units_of_a_length_need_the_size_of_a_pixel():
    assert PublishingConfig(pixel_size_um=2.0).scale({}) == ("1/pixel", 1.0)
    assert PublishingConfig(units="1/cm", pixel_size_um=2.0).scale({}) == ("1/cm", 5000.0)
    assert PublishingConfig(units="1/cm", pixel_size_um=2.0).scale({}, binning=2).factor == 2500.0
    for given in ({}, {"pixel_size_um": 1.0, "pixel_size_um_key": "pixel"}):
        with pytest.raises(ValueError, match="'1/cm' needs the size of a pixel"):
            PublishingConfig(units="1/cm", **given)
    of_each = PublishingConfig(units="1/cm", pixel_size_um_key="pixel")
    assert of_each.scale({"pixel": 1}).factor == 1e4
    for wrong in ({}, {"pixel": "0.65 um"}, {"pixel": 0.0}):
        with pytest.raises(ConfigurationError, match=r"start key 'pixel'.*1/pixel"):
            of_each.scale(wrong)
