"""The HDF5 file of a derived run."""

import resource
import subprocess
import sys

import h5py
import numpy as np
import pytest

from tomogan_bluesky.errors import PublishError
from tomogan_bluesky.publish.volume_file import (
    OWNER,
    VolumeFile,
    beginning_of,
    dataset_path,
    owner_of,
)

SHAPE = (5, 4, 6)


def slabs(seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=SHAPE) for name in ("reconstruction", "denoised")}


def cut(volumes, first, last):
    return {name: volume[first:last] for name, volume in volumes.items()}


def test_slabs_add_up_to_the_volume(tmp_path):
    volumes = slabs()
    with VolumeFile(tmp_path / "new" / "v.h5", SHAPE, attributes={"raw_run_uid": "r"}) as file:
        for first, last in ((0, 2), (2, 4), (4, 5)):
            file.write(first, cut(volumes, first, last))
    with h5py.File(tmp_path / "new" / "v.h5") as stored:
        assert stored.attrs["raw_run_uid"] == "r"
        for name, volume in volumes.items():
            dataset = stored[dataset_path(name)]
            assert dataset.dtype == np.float32
            assert dataset.chunks == (1, 4, 6)
            assert dataset.attrs["units"] == "1/pixel"
            np.testing.assert_array_equal(dataset, volume.astype(np.float32))


def test_another_process_reads_what_was_written_so_far(tmp_path):
    volumes = slabs()
    look = (
        "import sys, h5py\n"
        "with h5py.File(sys.argv[1], libver='latest', swmr=True) as file:\n"
        "    data = file['/entry/data/denoised']\n"
        "    print(data.shape[0], float(data[:].sum()))"
    )
    with VolumeFile(tmp_path / "v.h5", SHAPE) as file:
        file.write(0, cut(volumes, 0, 3))
        seen = subprocess.run(
            [sys.executable, "-c", look, tmp_path / "v.h5"], capture_output=True, text=True
        )
    n_slices, total = seen.stdout.split()
    assert int(n_slices) == 3
    assert float(total) == volumes["denoised"][:3].astype(np.float32).sum(dtype=np.float32)


@pytest.mark.parametrize("first", [1, 3])
def test_a_slab_out_of_order_is_refused_and_the_volume_goes_on(tmp_path, first):
    volumes = slabs()
    with VolumeFile(tmp_path / "v.h5", SHAPE) as file:
        file.write(0, cut(volumes, 0, 2))
        with pytest.raises(PublishError, match=f"starts at slice 2, got one at slice {first}"):
            file.write(first, cut(volumes, first, first + 1))
        file.write(2, cut(volumes, 2, 5))
    with h5py.File(tmp_path / "v.h5") as stored:
        np.testing.assert_array_equal(
            stored[dataset_path("denoised")], volumes["denoised"].astype("f4")
        )


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"denoised": np.zeros((1, 4, 6))}, "expected a slab of reconstruction, denoised"),
        (
            {"reconstruction": np.zeros((2, 4, 6)), "denoised": np.zeros((1, 4, 6))},
            "as many of every quantity",
        ),
        ({"reconstruction": np.zeros((1, 6, 4)), "denoised": np.zeros((1, 6, 4))}, r"\(4, 6\)"),
        ({"reconstruction": np.zeros((0, 4, 6)), "denoised": np.zeros((0, 4, 6))}, "1 to 5 more"),
        ({"reconstruction": np.zeros((6, 4, 6)), "denoised": np.zeros((6, 4, 6))}, "1 to 5 more"),
    ],
)
def test_a_slab_that_does_not_fit_is_refused(tmp_path, arrays, message):
    with (
        VolumeFile(tmp_path / "v.h5", SHAPE) as file,
        pytest.raises(PublishError, match=message),
    ):
        file.write(0, arrays)


def test_an_existing_file_is_left_alone(tmp_path):
    (tmp_path / "v.h5").write_bytes(b"somebody's")
    with pytest.raises(PublishError, match="never written over"):
        VolumeFile(tmp_path / "v.h5", SHAPE)
    assert (tmp_path / "v.h5").read_bytes() == b"somebody's"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PublishError, match="could not make the file of the slices"):
        VolumeFile(tmp_path / "file" / "v.h5", SHAPE)


def test_a_full_disk_is_named_with_what_to_do(tmp_path):
    shape = (64, 64, 64)
    slab = {"denoised": np.random.default_rng(0).normal(size=shape)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    file = VolumeFile(tmp_path / "v.h5", shape, ("denoised",))
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # as a quota would
    try:
        with pytest.raises(PublishError, match=r"v\.h5: could not write to .* disk is not full"):
            file.write(0, slab)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        file.close()


def test_a_file_says_whose_it_is_from_its_first_instant(tmp_path, monkeypatch):
    """Killed before, it leaves what the next attempt takes for its own, and nothing else."""
    path = tmp_path / "v.h5"
    beginning_of(path).write_bytes(b"cut off")

    def never(self, path):
        raise OSError(5, "as if killed here")

    with monkeypatch.context() as patch:
        patch.setattr(type(path), "rename", never)
        with pytest.raises(PublishError, match="could not make"):
            VolumeFile(path, SHAPE)
    assert list(tmp_path.iterdir()) == []
    beginning_of(path).write_bytes(b"cut off")
    with VolumeFile(path, SHAPE, attributes={OWNER: "u"}):
        assert owner_of(path) == "u"
    assert list(tmp_path.iterdir()) == [path]
