import threading

import numpy as np
import pytest
import torch

from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.recon.threads import Threads

CPU = torch.device("cpu")


def test_each_of_as_many_threads_as_torch_may_use_computes_alone(one_or_more_threads):
    one_or_more_threads(3)
    all_at_work = threading.Barrier(3, timeout=30)
    found = []

    def work(piece):
        all_at_work.wait()
        found.append((threading.current_thread().name, torch.get_num_threads(), piece))

    with Threads(CPU) as threads:
        threads.map(work, range(3))
        # Neither this thread nor new ones are told of it.
        assert torch.get_num_threads() == 3
        new = threading.Thread(target=lambda: found.append(("new", torch.get_num_threads(), None)))
        new.start()
        new.join()
    names, numbers, pieces = zip(*found, strict=True)
    assert len(set(names)) == 4
    assert numbers == (1, 1, 1, 3)
    assert sorted(pieces[:3]) == [0, 1, 2]
    assert not [t for t in threading.enumerate() if t.name.startswith("tomogan-reconstruct")]


@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_first_error_is_raised(n_threads, one_or_more_threads):
    one_or_more_threads(n_threads)
    with Threads(CPU) as threads, pytest.raises(ZeroDivisionError):
        threads.map(lambda a, b: a / b, [1, 1, 1], [1, 0, 2])
    assert torch.get_num_threads() == n_threads


def test_one_thread_starts_none():
    def work():
        assert threading.current_thread() is threading.main_thread()

    with Threads(CPU) as threads:
        threads.map(lambda _: work(), [1, 2])


def test_slices_may_be_made_in_inference_mode(one_or_more_threads):
    one_or_more_threads(2)
    reconstruct = Gridrec(ScanGeometry(np.arange(9) * np.pi / 9, 8, 16))
    sinograms = torch.rand(2, 9, 16)
    with torch.inference_mode():
        slices = reconstruct(sinograms)
    assert torch.equal(slices, reconstruct(sinograms))
