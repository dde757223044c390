"""Pairs on disk."""

import os
import shutil
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch

from tomogan_bluesky.errors import ConfigurationError, TrainingError
from tomogan_bluesky.training.hdf5_pairs import hdf5_pairs
from tomogan_bluesky.training.pairs import Pairs
from tomogan_bluesky.training.pairs_file import open_pairs, provenance_of, write_pairs


def some(n=3, size=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(n, size, size, generator=generator)
    noisy = target[:, None] + 0.1 * torch.randn(n, 2, size, size, generator=generator)
    return Pairs.of(noisy, target, torch.tensor([[1.0, 0.25]] * n))


def test_what_is_read_is_what_was_written_slab_by_slab(tmp_path):
    slabs = [(2, some(2, seed=1)), (0, some(2, seed=2))]  # in whatever order
    pairs = write_pairs(tmp_path / "new" / "a.h5", 4, slabs, {"uids": ["x"]}, n_volumes=2)
    for name in ("noisy", "target", "dose", "noise", "contrast"):
        expected = torch.cat([getattr(slabs[1][1], name), getattr(slabs[0][1], name)])
        assert torch.equal(getattr(pairs, name), expected)
    assert pairs.volume.tolist() == [0, 0, 1, 1]
    assert pairs.neighbours(2, 3) == [3, 2, 3]
    assert provenance_of(tmp_path / "new" / "a.h5") == {"uids": ["x"]}


def resident_kib(what):
    with open(f"/proc/{os.getpid()}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(what))


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's /proc")
def test_pixels_are_not_in_memory(tmp_path):
    slab = some(8, size=256)
    n = 20
    slabs = ((8 * k, slab) for k in range(n))
    write_pairs(tmp_path / "big.h5", 8 * n, slabs, {})
    size_kib = (tmp_path / "big.h5").stat().st_size // 1024
    before = resident_kib("RssAnon")
    pairs = open_pairs(tmp_path / "big.h5")
    total = sum(float(pairs.noisy[i, 1][100:140, 50:90].sum()) for i in range(len(pairs)))
    assert np.isfinite(total)
    assert resident_kib("RssAnon") - before < size_kib / 10
    assert size_kib > 100_000


def test_a_file_that_is_not_whole_has_no_name(tmp_path):
    def broken():
        yield 0, some()
        raise ConfigurationError("pairs: expected finite slices")

    with pytest.raises(ConfigurationError, match="finite"):
        write_pairs(tmp_path / "a.h5", 6, broken(), {})
    with pytest.raises(TrainingError, match="expected pairs of 6 slices, got 3"):
        write_pairs(tmp_path / "a.h5", 6, [(0, some())], {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_and_a_full_disk(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="can't be written"):
        write_pairs(tmp_path / "file" / "a.h5", 3, [(0, some())], {})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(TrainingError, match="expected room for .* GB, there are 0.00 GB"):
        write_pairs(tmp_path / "a.h5", 3, [(0, some())], {})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_refuses_other_files(tmp_path):
    (tmp_path / "a.h5").write_text("nothing")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["noisy"] = 1
    for name in ("a.h5", "b.h5"):
        with pytest.raises(TrainingError, match="not a file of pairs"):
            open_pairs(tmp_path / name)


def original(path, edit=lambda data: data):
    rng = np.random.default_rng(0)
    data = {}
    for part, n in (("train", 20), ("test", 3)):
        truth = rng.random((n, 24, 24))
        data[f"{part}_gt"] = truth
        data[f"{part}_ns"] = truth + 0.1 * rng.standard_normal(truth.shape)
    with h5py.File(path, "w") as file:
        for name, values in edit(data).items():
            file.create_dataset(name, data=values, compression="gzip")
    return data


def test_the_originals_layout_is_read(tmp_path):
    data = original(tmp_path / "a.h5")
    train, test = hdf5_pairs(tmp_path / "a.h5", tmp_path / "pairs", 0.25)
    assert len(train) == 20
    np.testing.assert_array_equal(train.noisy[:, 0], data["train_ns"].astype(np.float32))
    np.testing.assert_array_equal(test.target, data["test_gt"].astype(np.float32))
    assert train.dose.unique().tolist() == [0.25]
    again, _ = hdf5_pairs(tmp_path / "a.h5", tmp_path / "pairs", 0.25)
    assert torch.equal(again.noisy, train.noisy)
    assert len(list((tmp_path / "pairs").iterdir())) == 2


def spoil(data):
    data["train_ns"][17, 3, 3] = np.nan
    return data


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: {"x": d["train_ns"]}, "expected datasets 'train_ns' and 'train_gt', got x"),
        (lambda d: {"train_ns": d["train_ns"]}, "got 'train_ns' alone"),
        (lambda d: {**d, "train_gt": d["train_gt"][:, :20]}, "of one shape"),
        (spoil, "/train_ns, from slice 16 on: .* 1 of 4 noisy slices are not, .* slice 1"),
    ],
)
def test_refuses_files_that_teach_nothing(tmp_path, edit, message):
    original(tmp_path / "a.h5", edit)
    with pytest.raises(ConfigurationError, match=message):
        hdf5_pairs(tmp_path / "a.h5", tmp_path / "pairs", 0.25)
    with pytest.raises(ConfigurationError, match="expected an HDF5 file"):
        hdf5_pairs(tmp_path / "none.h5", tmp_path / "pairs", 0.25)
