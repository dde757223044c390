from functools import partial

import numpy as np
import pytest
import torch

from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.recon.fbp import FBP
from tomogan_bluesky.recon.flatfield import attenuation, transmission
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.recon.iterative import SIRT, TotalVariation
from tomogan_bluesky.recon.project import Projector
from tomogan_bluesky.recon.tilt import align_rows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
GEOMETRY = ScanGeometry(np.arange(181) * np.pi / 181, 120.3, 256)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (Gridrec, (35, 181, 256)),
        (FBP, (3, 181, 256)),
        (Projector, (35, 256, 256)),
        (partial(SIRT, iterations=5), (3, 181, 256)),
        (partial(TotalVariation, iterations=5), (3, 181, 256)),
    ],
)
def test_agrees_with_the_processor(make, shape):
    stack = torch.rand(shape)
    on_cpu = make(GEOMETRY)(stack)
    on_gpu = make(GEOMETRY, device="cuda")(stack.cuda())
    assert on_gpu.is_cuda
    assert (on_gpu.cpu() - on_cpu).norm() / on_cpu.norm() < 1e-4


@pytest.mark.parametrize("make", [Gridrec, FBP])
def test_bits_do_not_depend_on_the_slices_beside(make):
    stack = torch.rand(9, 181, 256, device="cuda")
    reconstruct = make(GEOMETRY, device="cuda")
    volume = reconstruct(stack)
    for size in (1, 4):
        assert torch.equal(torch.cat([reconstruct(part) for part in stack.split(size)]), volume)


def test_correction_agrees_with_the_processor():
    counts = torch.randint(0, 60000, (4, 50, 256), dtype=torch.int32).to(torch.uint16)
    dark, flat = torch.rand(4, 256), 50000 + torch.rand(4, 256)
    on_cpu, n_cpu = attenuation(transmission(counts, dark, flat), 1e-3)
    on_gpu, n_gpu = attenuation(transmission(counts.cuda(), dark.cuda(), flat.cuda()), 1e-3)
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-5, atol=1e-6)
    assert n_gpu == n_cpu


def test_rows_of_a_tilted_axis_agree_with_the_processor():
    lines, shifts = torch.rand(4, 50, 256), np.linspace(-3, 3, 4)
    on_gpu = align_rows(lines.cuda(), shifts)
    torch.testing.assert_close(on_gpu.cpu(), align_rows(lines, shifts), rtol=1e-5, atol=1e-5)
