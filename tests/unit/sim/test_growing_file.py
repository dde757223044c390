import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from tomogan_bluesky.sim.growing_file import GrowingFile

# Opens the file once, and then says for each line what it finds in it.
_READER = """
import json, sys, h5py
with h5py.File(sys.argv[1], "r", libver="latest", swmr=True) as file:
    print("open", flush=True)
    for line in sys.stdin:
        for name in ("/a/frames", "Angle"):
            file[name].id.refresh()
        found = file["/a/frames"].shape, file["/a/frames"][-1].tolist(), file["Angle"][-1]
        print(json.dumps(found), flush=True)
"""


def test_another_process_reads_at_once_what_is_appended(tmp_path):
    path = tmp_path / "new folder" / "file.h5"
    file = GrowingFile(path, {"/a/frames": ((2, 3), "<u2"), "Angle": ((), "<f8")})
    assert file.chunk_shape("/a/frames") == (1, 2, 3)
    command = [sys.executable, "-c", _READER, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout.readline() == "open\n"
        for i in range(5):
            file.append({"/a/frames": np.full((2, 3), i), "Angle": i / 3})
            reader.stdin.write("\n")
            reader.stdin.flush()
            found = json.loads(reader.stdout.readline())
            assert found == [[i + 1, 2, 3], [[i] * 3] * 2, i / 3]
        reader.stdin.close()
    assert file.count == 5
    file.close()
    file.close()
    with h5py.File(path, "r") as closed:
        assert closed["Angle"].shape == (5,)


def test_never_overwrites_a_file(tmp_path):
    GrowingFile(tmp_path / "file.h5", {"a": ((), "<f8")}).close()
    with pytest.raises(FileExistsError):
        GrowingFile(tmp_path / "file.h5", {"a": ((), "<f8")})
