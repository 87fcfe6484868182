"""Equal models give equal libraries, and small ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import pconvgen
from pconvgen.sparsify import sparsify
from tests.zoo import ZOO

pytestmark = pytest.mark.host


@pytest.mark.parametrize("target", ["host", "cortex-a76"])
def test_processes_write_the_same_bytes(target: str, models: Path, tmp_path: Path) -> None:
    """Whatever order Python's sets have, and also when the model has been run before."""
    verify = ["--verify"] if target == "host" else []
    libraries = []
    for number, options in enumerate(([], verify)):
        output = tmp_path / f"{number}.so"
        command = [sys.executable, "-m", "pconvgen", "compile", str(models / "small.pt2"), "--target", target]
        environment = {**os.environ, "PYTHONHASHSEED": str(number)}
        done = subprocess.run([*command, "-o", str(output), *options], env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        libraries.append(output.read_bytes())
    assert libraries[0] == libraries[1]


def test_size_is_that_of_the_surviving_weights(tmp_path: Path) -> None:
    entry = ZOO["resnet18"]
    model = entry.build()
    sparsify(model, "unstructured", 0.2)
    compiled = pconvgen.compile(model, "cortex-a76", example=(entry.example(),))
    survivors = sum(int(torch.count_nonzero(parameter)) for parameter in model.parameters())
    indices = 4 * survivors
    size = compiled.export(tmp_path / "m.so").stat().st_size
    assert size <= 1.1 * (4 * survivors + indices) + 1e6
    # What the decisions say about it is the truth.
    packed = sum(decision.nbytes or 0 for decision in compiled.decisions)
    assert np.isclose(size, packed, atol=1e6)
