"""Frames in files: growing, missing, truncated, and where they may be read from."""

import re
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from tomogan_bluesky.config import ScanConfig
from tomogan_bluesky.errors import AssetError
from tomogan_bluesky.intake.assets import Assets, allowed_path
from tomogan_bluesky.intake.frames import StoredFrame, read_rows
from tomogan_bluesky.intake.uris import file_uri

FRAMES = np.arange(6 * 4 * 5, dtype=np.uint16).reshape(6, 4, 5)


@pytest.fixture
def hdf5(tmp_path):
    path = tmp_path / "frames.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("entry/data", data=FRAMES, maxshape=(None, 4, 5), chunks=(1, 4, 5))
    return path


def assets_of(path, dataset="entry/data", mimetype="application/x-hdf5", **config):
    assets = Assets(ScanConfig(file_wait_s=0, **config))
    assets.add(
        {
            "uid": "r",
            "data_key": "camera",
            "mimetype": mimetype,
            "uri": path if isinstance(path, str) else file_uri(path),
            "parameters": {"dataset": dataset},
        }
    )
    return assets


def test_rows_of_frames_in_any_order_and_from_anywhere(hdf5):
    assets = assets_of(hdf5)
    source = assets.source("r")
    assert (source.frame_shape, source.dtype, source.count(6)) == ((4, 5), np.uint16, 6)
    for order in ([0, 1, 2, 3, 4, 5], [4, 1, 3], [2]):
        stored = [StoredFrame(source, i) for i in order]
        np.testing.assert_array_equal(read_rows(stored, slice(1, 3)), FRAMES[order, 1:3])
    mixed = [StoredFrame(source, 5), FRAMES[0], StoredFrame(source, 2)]
    np.testing.assert_array_equal(read_rows(mixed, slice(None)), FRAMES[[5, 0, 2]])
    assets.close()


_WRITER = """
import sys
from pathlib import Path
import numpy as np
from tomogan_bluesky.sim.growing_file import GrowingFile
file = GrowingFile(Path(sys.argv[1]), {"d": ((4, 5), "u2"), "Angle": ((), "f8")})
for i in range(6):
    file.append({"d": np.arange(20).reshape(4, 5) + 20 * i, "Angle": i})
    print(i, flush=True)
    sys.stdin.readline()
file.close()
"""


def test_a_file_is_read_while_another_process_writes_it(tmp_path):
    """A frame is written when the reader has read the one before; HDF5 in one process cheats."""
    path = tmp_path / "growing.h5"
    command = [sys.executable, "-c", _WRITER, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as writer:
        writer.stdout.readline()
        frames, angles = assets_of(path, "d"), assets_of(path, "Angle")
        for i in range(6):
            for source, values in ((frames.source("r"), FRAMES), (angles.source("r"), range(6))):
                assert source.has(i)
                assert not source.has(i + 1)
                assert list(source.absent(range(i + 2))) == [i + 1]
                np.testing.assert_array_equal(
                    source.read(slice(0, i + 1), slice(None)), values[: i + 1]
                )
            writer.stdin.write("go on\n")
            writer.stdin.flush()
            writer.stdout.readline()
        assert writer.wait() == 0
    assert frames.source("r").count(6) == angles.source("r").count(6) == 6
    frames.close()
    angles.close()


def test_a_frame_that_is_late_is_waited_for(tmp_path):
    path = tmp_path / "growing.h5"
    with h5py.File(path, "w", libver="latest") as file:
        data = file.create_dataset("d", (1, 4, 5), "u2", maxshape=(None, 4, 5), chunks=(1, 4, 5))
        file.swmr_mode = True

        def write_the_rest():
            for i in range(6):
                data.resize(i + 1, axis=0)
                data[i] = FRAMES[i]
                data.flush()

        assets = assets_of(path, "d")
        assets._config = ScanConfig(file_wait_s=20)
        source = assets.source("r")
        writer = threading.Thread(target=write_the_rest)
        writer.start()
        assert source.count(6) == 6
        writer.join()
        np.testing.assert_array_equal(source.read(slice(0, 6), slice(None)), FRAMES)
        assets.close()


def test_tiff_sequences(tmp_path):
    for i, frame in enumerate(FRAMES):
        tifffile.imwrite(tmp_path / f"img_{i:04d}.tif", frame)
    assets = Assets(ScanConfig(file_wait_s=0))
    for uid, template in (("a", "img_%04d.tif"), ("b", "img_{:04d}.tif")):
        assets.add(
            {
                "uid": uid,
                "data_key": "camera",
                "mimetype": "multipart/related;type=image/tiff",
                "uri": file_uri(tmp_path),
                "parameters": {"template": template},
            }
        )
        source = assets.source(uid)
        assert (source.frame_shape, source.dtype, source.count(9)) == ((4, 5), np.uint16, 6)
        np.testing.assert_array_equal(source.read(slice(2, 5), slice(1, 3)), FRAMES[2:5, 1:3])


def tiff_sequence(folder, first, name="img_{:04d}.tif"):
    for number, frame in enumerate(FRAMES, first):
        tifffile.imwrite(folder / name.format(number), frame)


def tiff_assets(uri, parameters, **config):
    assets = Assets(ScanConfig(**{"file_wait_s": 0, **config}))
    assets.add(
        {
            "uid": "r",
            "data_key": "camera",
            "mimetype": "multipart/related;type=image/tiff",
            "uri": uri,
            "parameters": parameters,
        }
    )
    return assets


@pytest.mark.parametrize(
    ("documents_from", "files_from", "first_file_number"), [(0, 0, 0), (1, 1, 0), (0, 1, 1)]
)
def test_tiff_files_are_numbered_from_wherever(
    tmp_path, documents_from, files_from, first_file_number
):
    tiff_sequence(tmp_path, files_from)
    source = tiff_assets(
        file_uri(tmp_path),
        {"template": "img_{:04d}.tif"},
        first_file_number=first_file_number,
    ).source("r")
    indices = list(range(documents_from, documents_from + 6))
    assert source.absent(indices) == {}
    assert source.frame_shape == (4, 5)
    np.testing.assert_array_equal(source.read(indices, slice(1, 3)), FRAMES[:, 1:3])


def test_tiff_files_that_are_numbered_otherwise_are_an_error_with_the_setting(tmp_path):
    tiff_sequence(tmp_path, 1)
    source = tiff_assets(file_uri(tmp_path), {"template": "img_{:04d}.tif"}).source("r")
    absent = source.absent(range(6))
    assert list(absent) == [0]
    assert re.search(r"img_0000\.tif.*img_0001\.tif to .*scan\.first_file_number", absent[0])


def test_tiff_templates_as_tiled_reads_them(tmp_path):
    """The template stands behind the URI as it is; old ones have a place for a file name."""
    tiff_sequence(tmp_path, 0, "scan_{:06d}.tif")
    for uri, parameters in (
        (f"file://localhost{tmp_path}/scan", {"template": "_{:06d}.tif"}),
        (f"file://localhost{tmp_path}/", {"template": "/scan_{:06d}.tif"}),
        (f"file://localhost{tmp_path}/", {"template": "%s%s_%6.6d.tif", "filename": "scan"}),
    ):
        source = tiff_assets(uri, parameters).source("r")
        np.testing.assert_array_equal(source.read([5, 0], slice(None)), FRAMES[[5, 0]])


def test_a_tiff_file_that_is_a_link_out_of_the_allowed_folders_is_refused(tmp_path):
    inside = tmp_path / "raw"
    inside.mkdir()
    tiff_sequence(tmp_path, 0)
    (inside / "img_0000.tif").symlink_to(tmp_path / "img_0000.tif")
    source = tiff_assets(
        file_uri(inside), {"template": "img_{:04d}.tif"}, allowed_roots=(inside,)
    ).source("r")
    with pytest.raises(AssetError, match="allowed_roots"):
        source.read([0], slice(None))


def test_a_path_map_matches_whole_names_of_folders(hdf5):
    elsewhere = hdf5.parent / "elsewhere"
    config = ScanConfig(path_map=((str(hdf5.parent)[:-1], str(elsewhere)),))
    assert allowed_path(hdf5, "", config) == hdf5
    folder = ScanConfig(path_map=((f"{hdf5.parent}/", f"{elsewhere}/"),))
    assert allowed_path(hdf5, "", folder) == elsewhere / hdf5.name
    windows = ScanConfig(path_map=(("C:\\data", "/mnt"),))
    assert allowed_path(Path("C:\\data\\a\\b.h5"), "", windows) == Path("/mnt/a/b.h5")


def test_area_detector_resources(hdf5):
    assets = Assets(ScanConfig(file_wait_s=0))
    assets.add(
        {
            "uid": "r",
            "spec": "AD_HDF5",
            "root": str(hdf5.parent),
            "resource_path": hdf5.name,
            "resource_kwargs": {"frame_per_point": 2, "dataset": "entry/data"},
        }
    )
    assert assets.frames_a_point("r") == 2
    np.testing.assert_array_equal(assets.source("r").read(slice(0, 6), slice(None)), FRAMES)
    assets.close()


def test_paths_of_other_machines_are_mapped(hdf5):
    theirs = "file://localhost/C:/frames/frames.h5"
    assets = assets_of(theirs, path_map=(("/C:/frames", str(hdf5.parent)),))
    assert assets.source("r").count(1) == 6
    assets.close()


def test_only_allowed_folders_are_read_and_links_do_not_lead_out(hdf5, tmp_path):
    inside, outside = tmp_path / "raw", tmp_path / "elsewhere"
    inside.mkdir()
    outside.mkdir()
    hdf5.rename(outside / "secret.h5")
    (inside / "link.h5").symlink_to(outside / "secret.h5")
    (inside / "good.h5").write_bytes((outside / "secret.h5").read_bytes())
    roots = (inside,)
    good = assets_of(inside / "good.h5", allowed_roots=roots)
    assert good.source("r").count(1) == 6
    good.close()
    for path in (outside / "secret.h5", inside / "link.h5", f"file://localhost{inside}/../x.h5"):
        with pytest.raises(AssetError, match="allowed_roots"):
            assets_of(path, allowed_roots=roots).source("r")


@pytest.mark.parametrize("how", ["link", "virtual"])
def test_a_dataset_does_not_lead_out_of_the_allowed_folders(hdf5, tmp_path, how):
    inside = tmp_path / "raw"
    inside.mkdir()
    path = inside / "frames.h5"
    with h5py.File(path, "w", libver="latest") as file:
        if how == "link":
            file["entry/data"] = h5py.ExternalLink("../frames.h5", "entry/data")
        else:
            layout = h5py.VirtualLayout(FRAMES.shape, "u2")
            layout[:] = h5py.VirtualSource("../frames.h5", "entry/data", FRAMES.shape)
            file.create_virtual_dataset("entry/data", layout)
    with pytest.raises(AssetError, match="allowed_roots"):
        assets_of(path, allowed_roots=(inside,)).source("r").count(1)
    assets = assets_of(path, allowed_roots=(tmp_path,))
    np.testing.assert_array_equal(assets.source("r").read([5], slice(None)), FRAMES[[5]])
    assets.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "expected an HDF5 file that can be read"),
        (lambda path: path.write_bytes(b"not HDF5 at all"), "expected an HDF5 file"),
        (lambda path: path.write_bytes(b""), "expected an HDF5 file"),
        (
            lambda path: h5py.File(path, "w").close(),
            "expected a dataset 'entry/data', got only none",
        ),
    ],
)
def test_a_file_that_is_none(tmp_path, make, message):
    path = tmp_path / "frames.h5"
    make(path)
    with pytest.raises(AssetError, match=message) as caught:
        assets_of(path).source("r").count(1)
    assert str(path) in str(caught.value)


def test_a_truncated_file(hdf5):
    whole = hdf5.read_bytes()
    hdf5.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AssetError, match=str(hdf5)):
        assets_of(hdf5).source("r").read(slice(0, 6), slice(None))


@pytest.mark.parametrize(
    ("uri", "mimetype"),
    [
        ("s3://bucket/frames.h5", "application/x-hdf5"),
        ("file://otherhost/frames.h5", "application/x-hdf5"),
        ("file://localhost/x", "application/x-unknown"),
    ],
)
def test_other_kinds_of_resources_are_refused(uri, mimetype):
    with pytest.raises(AssetError, match="expected"):
        assets_of(uri, mimetype=mimetype).source("r")
