"""What a run keeps of the machine's memory."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import pconvgen

pytestmark = pytest.mark.host


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="nothing tells this process's memory")
def test_runs_leave_nothing_behind() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 3, 1)]
    compiled = pconvgen.compile(nn.Sequential(*layers).eval(), inputs={"input": (1, 3, 192, 192)})
    memory = compiled.manifest.memory
    assert memory is not None
    assert memory.nbytes > 4 << 20

    image = np.ones((1, 3, 192, 192), "float32")

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for _ in range(5):
        compiled.run(image)
    before = resident()
    for _ in range(30):
        compiled.run(image)
    assert resident() - before < memory.nbytes
