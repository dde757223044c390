"""What torch finds in processes of ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tomogan_bluesky.torch_environment import TORCH_ENVIRONMENT, prepare

# Prints what the kernel is asked for where a tensor of 64 MiB lies: "hg" is large pages.
TENSOR = """
import tomogan_bluesky.torch_environment as environment
environment.prepare()
import torch
tensor = torch.ones(16 << 20)
address = tensor.data_ptr() + (32 << 20)
inside = False
for line in open("/proc/self/smaps"):
    first, _, rest = line.partition("-")
    if "-" in line.split()[0]:
        inside = int(first, 16) <= address < int(rest.split()[0], 16)
    elif inside and line.startswith("VmFlags"):
        print("hg" in line.split())
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the kernel is not Linux")
def test_large_tensors_lie_in_large_pages():
    modes = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not modes.exists():
        pytest.skip("the kernel has no large pages")
    environment = {k: v for k, v in os.environ.items() if k not in TORCH_ENVIRONMENT}

    def found(**more):
        command = [sys.executable, "-c", TENSOR]
        env = environment | more
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout

    assert found() == "True\n"
    assert found(THP_MEM_ALLOC_ENABLE="0") == "False\n"  # who has set something else keeps it


def test_what_is_set_is_kept(monkeypatch):
    for name in TORCH_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    prepare()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"
