"""What compiling and running take of the machine's memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
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


@pytest.mark.long
def test_compiling_holds_few_copies_of_the_weights(tmp_path: Path) -> None:
    """Each model in a process of its own, as the command line prints it."""

    def peak(features: int) -> int:
        model = nn.Sequential(nn.Linear(64, features), nn.Linear(features, 4096, bias=False)).eval()
        path = tmp_path / "model.pt2"
        torch.export.save(torch.export.export(model, (torch.zeros(1, 64),)), path)
        command = [sys.executable, "-m", "pconvgen", "compile", path, "-o", tmp_path / "model.so", "--timings"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        (mebibytes,) = re.findall(r"peak memory, MiB +(\d+)", printed)
        return int(mebibytes)

    weights = 4 * 4096 * 8192 >> 20
    assert peak(8192) - peak(64) <= 3 * weights
