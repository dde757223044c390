"""Scans in files: their kind is seen from their content."""

import h5py
import pytest
from scan_files import Frames, write_data_exchange, write_nxtomo, write_tiff_folder

from tomogan_bluesky.errors import IntakeError
from tomogan_bluesky.intake.files import read_scan
from tomogan_bluesky.intake.recorded import ranges_of

KINDS = r"Data Exchange \(HDF5 .*; NXtomo \(HDF5 .*; or TIFF folder \(.* scan.yml"


def test_names_of_files_do_not_matter(tmp_path):
    frames = Frames()
    for plan_name, path in {
        "ingest_data_exchange": write_data_exchange(tmp_path / "a.nxs", frames),
        "ingest_nxtomo": write_nxtomo(tmp_path / "b.tif", frames),
        "ingest_tiff_folder": write_tiff_folder(tmp_path / "c.h5", frames),
    }.items():
        assert read_scan(path).plan_name == plan_name


def test_what_is_of_no_kind_is_refused_with_what_there_is(tmp_path):
    with pytest.raises(IntakeError, match=f"expected one of: {KINDS}.*; got: no such file"):
        read_scan(tmp_path / "scan.h5")
    (tmp_path / "scan.h5").write_text("no HDF5")
    with pytest.raises(IntakeError, match=f"{KINDS}.*; got: no HDF5 file that can be read"):
        read_scan(tmp_path / "scan.h5")
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["entry/definition"] = "NXarpes"
    with pytest.raises(IntakeError, match=f"{KINDS}.*; got: an HDF5 file with /entry/definition"):
        read_scan(tmp_path / "scan.h5")
    with pytest.raises(IntakeError, match=f"{KINDS}.*; got: a folder without scan.yml"):
        read_scan(tmp_path)


@pytest.mark.parametrize(
    ("indices", "ranges"),
    [
        ([3], ((3, 4),)),
        ([0, 1, 2], ((0, 3),)),
        ([0, 2, 3, 7], ((0, 1), (2, 4), (7, 8))),
    ],
)
def test_indices_as_ranges(indices, ranges):
    assert ranges_of(indices) == ranges
