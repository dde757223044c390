"""The doctor names what is wrong, and the line that mends it."""

import numpy as np
import pytest
import yaml
from scans import scan_documents

from tomogan_bluesky.config import ScanConfig
from tomogan_bluesky.errors import MissingFramesError
from tomogan_bluesky.intake.diagnosis import diagnose
from tomogan_bluesky.intake.references import References


def problems(docs, **config):
    return [f for f in diagnose(docs, ScanConfig(**config)) if not f.fine]


def mended(finding):
    """The settings that a finding proposes."""
    return ScanConfig(**yaml.safe_load(finding.mend)["scan"])


def test_nothing_is_wrong_with_a_good_scan():
    findings = diagnose(scan_documents(), ScanConfig())
    assert all(f.fine for f in findings), findings
    told = "\n".join(f.what for f in findings)
    for expected in ("'camera'", "'rotation' is the angle, in deg", "2 dark", "37 projections of"):
        assert expected in told


def test_a_wrong_angle_key_is_answered_with_the_right_one():
    docs = scan_documents()
    wrong = next(f for f in problems(docs, angle_key="theta") if f.mend)
    assert "'theta' is not among them" in wrong.what
    assert mended(wrong).angle_key == "rotation"
    assert not problems(docs, angle_key=mended(wrong).angle_key)


def test_an_angle_without_units_is_answered_with_units():
    docs = scan_documents(units=None)
    wrong = next(f for f in problems(docs) if f.mend)
    assert not [f for f in diagnose(docs, mended(wrong)) if not f.fine]


def test_a_stream_of_another_name_is_found():
    def rename(name, doc):
        if name == "descriptor" and doc["name"] == "flat":
            doc["name"] = "beam_only"
        return doc

    docs = scan_documents(edit=rename)
    wrong = next(f for f in problems(docs) if f.mend)
    assert mended(wrong).flat_streams == ("beam_only",)
    assert not [f for f in diagnose(docs, mended(wrong)) if not f.fine]


@pytest.mark.parametrize("kind", ["darks", "flats"])
def test_missing_references_are_said(kind):
    assert any(f"no {kind[:-1]} frames" in f.what for f in problems(scan_documents(**{kind: 0})))


def test_references_elsewhere_are_looked_at_too():
    docs = scan_documents(darks=0, flats=0)
    found = References(np.zeros((3, 32), np.float32), np.ones((1, 3, 32), np.float32), np.zeros(1))
    config = ScanConfig(references_run_key="flats_of")
    assert all(f.fine for f in diagnose(docs, config, lambda start, has_own: found))

    def nowhere(start, has_own):
        assert (start["uid"], has_own) == (docs[0][1]["uid"], False)
        raise MissingFramesError("no such run")

    wrong = [f.what for f in diagnose(docs, config, nowhere) if not f.fine]
    assert wrong == ["no such run"]


def test_two_cameras_are_answered_with_the_line_that_names_one():
    second = {"source": "test", "dtype": "array", "shape": [3, 32]}
    docs = scan_documents(extra_keys={"side_camera": second})
    wrong = next(f for f in problems(docs) if f.mend)
    assert "camera, side_camera" in wrong.what
    assert mended(wrong).image_key == "camera"
    assert not [f for f in diagnose(docs, mended(wrong)) if not f.fine]
