"""Small models, exported and compiled once for all tests of the command line."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from commands import Invoke, invoker
from small import SHAPE, Two, small

import pconvgen


@pytest.fixture
def invoke(capfd: pytest.CaptureFixture[str]) -> Invoke:
    """Runs a command: exit code, standard output, standard error."""
    return invoker(capfd)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small.pt2, small.onnx, two.pt2, and the libraries small.so, two.so and arm.so."""
    folder = tmp_path_factory.mktemp("models")
    model, example = small(), torch.zeros(SHAPE)
    torch.export.save(torch.export.export(model, (example,)), folder / "small.pt2")
    pair = (torch.zeros(1, 4), torch.zeros(1, 4))
    torch.export.save(torch.export.export(Two().eval(), pair), folder / "two.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {"input_names": ["image"], "output_names": ["logits"]}
        torch.onnx.export(model, (example,), str(folder / "small.onnx"), dynamo=False, **names)
    pconvgen.compile(folder / "small.pt2").export(folder / "small.so")
    pconvgen.compile(folder / "two.pt2").export(folder / "two.so")
    pconvgen.compile(folder / "small.pt2", "cortex-a53").export(folder / "arm.so")
    return folder
