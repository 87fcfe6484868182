"""ONNX Runtime as the judge of what an ONNX file computes.

Not onnx's own reference evaluator: it takes batch statistics for every BatchNormalization before opset 14, and reads
some operators otherwise than those who run them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from pconvgen.errors import PconvgenError, last_line
from pconvgen.frontend.spec import Judge, NamedArrays


def judge(path: Path, outputs: Sequence[str]) -> Judge:
    """The judge of the file at `path`. Its session begins with the first inputs that it is given.

    Running it raises PconvgenError when ONNX Runtime is not installed or cannot run the model.
    """
    installed = find_spec("onnxruntime") is not None
    name = f"onnxruntime {version('onnxruntime')}" if installed else "onnxruntime"
    return Judge(name, _runner(path, outputs))


def _runner(path: Path, outputs: Sequence[str]) -> Callable[[NamedArrays], NamedArrays]:
    @cache
    def session() -> Any:
        if find_spec("onnxruntime") is None:
            raise PconvgenError(
                "verifying an ONNX file needs the package onnxruntime",
                file=path,
                remedy="install it: pip install 'pconvgen[verify]', or compile without --verify",
            )
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(values: NamedArrays) -> NamedArrays:
        try:
            model = session()
            fed = {each.name: values[each.name].astype(_dtype(each.type), copy=False) for each in model.get_inputs()}
            results = model.run(list(outputs), fed)
        except PconvgenError:
            raise
        except Exception as error:
            raise PconvgenError(
                "onnxruntime cannot run this model, so nothing can be said about what it should compute",
                file=path,
                found=last_line(error),
                remedy="compile without --verify, and compare with the framework that the model comes from",
            ) from error
        return {name: np.asarray(result) for name, result in zip(outputs, results, strict=True)}

    return run


def _dtype(kind: str) -> np.dtype[Any]:
    """The NumPy type of "tensor(float)"."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32", "double": "float64"}.get(name, name))
