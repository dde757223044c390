"""The memory of a GPU does not suffice, which a stand-in for one pretends."""

import numpy as np
import pytest
import torch
from generators import export_deep

from tomogan_bluesky.config import PreprocessingConfig
from tomogan_bluesky.denoise.denoiser import TorchScriptDenoiser
from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.pipeline.fallback import Computation, DenoisingElsewhere
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.recon.preprocess import Fields, Preprocessing
from tomogan_bluesky.run.harmless import HarmlessDenoiser

ROWS, ANGLES, COLUMNS = 7, 20, 16
GEOMETRY = ScanGeometry(np.arange(ANGLES) * np.pi / ANGLES, 7.2, COLUMNS)
FRAMES = np.random.default_rng(0).integers(200, 900, (ROWS, ANGLES, COLUMNS)).astype(np.uint16)


class SmallGpu:
    """Makes steps whose device is the processor, and whose memory holds few rows."""

    def __init__(self, rows_for_frames: int, rows_for_slices: int) -> None:
        self.rows = {"frames": rows_for_frames, "slices": rows_for_slices}
        self.asked: list[int] = []

    def preprocessing(self, device):
        dark = np.full((ROWS, COLUMNS), 100, np.float32)
        fields = Fields(dark, dark[None] + 900, np.ones((ANGLES, 1), np.float32))
        step = Preprocessing(PreprocessingConfig(), fields, 1e-6)
        return _Limited(self, step, device, "frames")

    def reconstructor(self, device):
        return _Limited(self, Gridrec(GEOMETRY), device, "slices")


class _Limited:
    def __init__(self, gpu, step, device, what):
        self._gpu, self._step, self._device, self._what = gpu, step, device, what

    def __call__(self, rows, *args, **kwargs):
        if self._device == "cuda":
            self._gpu.asked.append(len(rows))
            if len(rows) > self._gpu.rows[self._what]:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return self._step(rows, *args, **kwargs)


def compute(gpu, device="cuda"):
    computation = Computation(device, gpu.preprocessing, gpu.reconstructor)
    lines, _ = computation.attenuation(FRAMES, 0, ROWS)
    first = computation.reconstruct(lines)
    return first, computation.reconstruct(lines), computation.remarks


WHOLE, _, _ = compute(SmallGpu(99, 99))


def test_fewer_slices_at_once_give_the_same_bits_and_are_remembered():
    gpu = SmallGpu(99, 2)
    first, second, remarks = compute(gpu)
    assert torch.equal(first, WHOLE)
    assert torch.equal(second, WHOLE)
    assert remarks == [f"the memory of cuda is too small for {n} slices at once" for n in (7, 3)]
    assert max(gpu.asked[-ROWS:]) == 1, "what did not fit is not tried again"


@pytest.mark.parametrize("sizes", [(0, 99), (99, 0), (0, 0)])
def test_the_processor_takes_over_what_a_gpu_cannot_hold_at_all(sizes):
    gpu = SmallGpu(*sizes)
    first, second, remarks = compute(gpu)
    assert torch.equal(first, WHOLE)
    assert torch.equal(second, WHOLE)
    assert remarks[-1] == "the memory of cuda is too small: the processor made the rest"
    assert sum("processor" in remark for remark in remarks) == 1


def test_the_processor_has_nowhere_to_go():
    class Full(SmallGpu):
        def reconstructor(self, device):
            return super().reconstructor("cuda")

    with pytest.raises(torch.OutOfMemoryError):
        compute(Full(99, 0))


def test_the_processor_denoises_what_a_gpu_cannot(tmp_path):
    path = export_deep(tmp_path / "model.ts")
    denoiser = TorchScriptDenoiser(path)
    slices = torch.rand(4, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = denoiser(slices, (1, 1))

    class SmallGpuDenoiser(TorchScriptDenoiser):
        def __call__(self, slices, context=(0, 0)):
            raise torch.OutOfMemoryError("CUDA out of memory")

        def on(self, device):
            assert device == "cpu"
            return TorchScriptDenoiser(path, device, sha256=self.sha256)

    patient = DenoisingElsewhere(HarmlessDenoiser(SmallGpuDenoiser(path), 1.0))
    assert torch.equal(patient(slices, (1, 1)), expected)
    assert torch.equal(patient(slices, (1, 1)), expected)
    assert len(patient.remarks) == 1
    assert "processor" in patient.remarks[0]
    assert torch.equal(denoiser.on("cpu")(slices), denoiser(slices))


def test_a_denoiser_that_cannot_move_fails_with_what_the_gpu_said():
    class Fixed:
        card, sha256 = None, ""

        def __call__(self, slices):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        DenoisingElsewhere(Fixed())(torch.zeros(1, 8, 8))
