"""Networks as other engines get them: an ONNX file, an input and what PyTorch computes of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

OPSET = 13
"""What all engines read; DeepSparse knows no newer one."""


@dataclass(frozen=True)
class Exported:
    """A network as engines get it.

    Attributes
    ----------
    path: the ONNX file.
    inputs: by name, float32 NCHW.
    expected: the outputs by name, as PyTorch computes them.
    """

    path: Path
    inputs: dict[str, NDArray[np.float32]]
    expected: dict[str, NDArray[np.float32]]

    def error(self, found: list[NDArray[np.float32]]) -> float:
        """Largest difference of an output, relative to its largest value; not a number when a shape is another."""
        if [array.shape for array in found] != [array.shape for array in self.expected.values()]:
            return float("nan")
        pairs = zip(found, self.expected.values(), strict=True)
        return max(float(np.abs(array - right).max() / np.abs(right).max()) for array, right in pairs)


def export(model: nn.Module, image: torch.Tensor, path: Path) -> Exported:
    """Writes a network as ONNX; batch norm is folded by the exporter."""
    with torch.no_grad():
        results = model(image)
    results = results if isinstance(results, tuple) else (results,)
    names = [f"output{index}" for index, _ in enumerate(results)]
    torch.onnx.export(
        model, (image,), str(path), dynamo=False, opset_version=OPSET, input_names=["input"], output_names=names
    )
    expected = {name: result.numpy() for name, result in zip(names, results, strict=True)}
    return Exported(path, {"input": image.numpy()}, expected)


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Without the warnings of PyTorch's ONNX exporter, of which the reader cannot act on any."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
