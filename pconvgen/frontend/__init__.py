"""Front ends: a model file or object in, one Relax module out. A folder for each format."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pconvgen.errors import PconvgenError, UsageError
from pconvgen.frontend.spec import Imported, TensorSpec

__all__ = ["Imported", "TensorSpec", "load_model", "model_format"]

_TORCH_PICKLES = (".pt", ".pth", ".pkl", ".bin", ".ckpt", ".safetensors", ".tar")


def load_model(
    source: Any, inputs: Mapping[str, Sequence[int]] | None = None, *, example: Sequence[Any] | None = None
) -> Imported:
    """Import a model.

    Parameters
    ----------
    source: path of a .pt2 file (torch.export.save) or of an .onnx file, a torch ExportedProgram, or an nn.Module.
    inputs: input name -> shape. Sizes dynamic dimensions; for an nn.Module the names are forward()'s arguments.
    example: for an nn.Module, its example inputs in place of `inputs`.

    Raises
    ------
    UsageError: no such file, an unknown extension, a shape that does not fit or is missing.
    PconvgenError: the file is damaged or something else; an operator, dtype or weight is not supported.
    """
    _check_request(inputs, example)
    if isinstance(source, str | Path):
        return _load_path(Path(source), inputs)
    if "torch" in sys.modules:
        import torch

        from pconvgen.frontend.torch import export as torch_export
        from pconvgen.frontend.torch.exporting import export_module

        name = type(source).__name__
        if isinstance(source, torch.export.ExportedProgram):
            return torch_export.import_program(source, inputs, name)
        if isinstance(source, torch.nn.Module):
            return torch_export.import_program(export_module(source, inputs, example), None, name)
    raise UsageError(
        "this is not a model",
        found=type(source).__name__,
        expected="a path, an nn.Module or an ExportedProgram",
        remedy="give the path of a .pt2 or .onnx file",
    )


def _check_request(inputs: Any, example: Any) -> None:
    """Raises UsageError unless `inputs` gives shapes by name, and `example` is a tuple or list."""
    if inputs is not None:
        shapes = inputs.values() if isinstance(inputs, Mapping) else [None]
        if not all(
            isinstance(shape, Sequence) and all(hasattr(size, "__index__") for size in shape) for shape in shapes
        ):
            raise UsageError(
                "inputs are no shapes by name",
                found=inputs,
                expected="a dict of input names and their sizes",
                remedy="give for example inputs={'x': (1, 3, 224, 224)}",
            )
    if example is not None and not isinstance(example, tuple | list):
        raise UsageError(
            "the example is no tuple of inputs",
            found=type(example).__name__,
            expected="all arguments of forward()",
            remedy="give for example example=(tensor,)",
        )


def _load_path(path: Path, inputs: Mapping[str, Sequence[int]] | None) -> Imported:
    if model_format(path) == "onnx":
        from pconvgen.frontend.onnx import file as onnx_file

        return onnx_file.import_file(path, inputs)
    from pconvgen.frontend.torch import export as torch_export

    return torch_export.import_file(path, inputs)


def model_format(path: Path) -> str:
    """Which framework wrote the model at `path`: torch or onnx.

    Raises
    ------
    UsageError: no such file, or an extension that no front end reads.
    PconvgenError: the framework is not installed.
    """
    suffix = path.suffix.lower()
    if suffix in _TORCH_PICKLES:
        raise UsageError(
            "this file holds weights, not a network",
            file=path,
            found=suffix,
            expected=".pt2 or .onnx",
            remedy="export the model: torch.export.save(torch.export.export(model.eval(), (example,)), 'model.pt2')",
        )
    if suffix not in (".pt2", ".onnx"):
        raise UsageError(
            "unknown model format",
            file=path,
            found=suffix or "no extension",
            expected=".pt2 or .onnx",
            remedy="export the model with torch.export.save or torch.onnx.export",
        )
    if not path.is_file():
        raise UsageError(
            "not a file" if path.exists() else "no such file", file=path, remedy="check the path of the model"
        )
    framework = "torch" if suffix == ".pt2" else "onnx"
    if importlib.util.find_spec(framework) is None:
        raise PconvgenError(
            f"{suffix} files need the package {framework}", file=path, remedy=f"install it: pip install {framework}"
        )
    return framework
