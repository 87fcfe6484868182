"""Older operator sets of ONNX: onnx converts them to the oldest that the importer reads."""

from __future__ import annotations

import warnings

import onnx
from onnx import version_converter

from pconvgen.errors import PconvgenError, PconvgenWarning, last_line

OLDEST, WANTED = 7, 11
"""The oldest operator set that is converted, and the one that it becomes."""


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a model uses; 0 when it has none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def modern(model: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """The model, converted with a warning when its operator set is older than the importer reads.

    Raises PconvgenError when it is too old, or onnx cannot convert it.
    """
    opset = opset_of(model)
    if opset >= WANTED:
        return model
    try:
        if opset < OLDEST:
            raise ValueError(f"opset {opset}")
        converted = version_converter.convert_version(model, WANTED)
        onnx.checker.check_model(converted)
    except Exception as error:
        raise PconvgenError(
            "the operator set of this model is too old" + (", and onnx cannot convert it" if opset >= OLDEST else ""),
            file=source,
            found=last_line(error),
            expected=f"opset {WANTED} or newer",
            remedy=f"export the model again with opset {WANTED} or newer",
        ) from error
    warnings.warn(
        PconvgenWarning(
            f"{source}: opset {opset} was converted to opset {WANTED} with onnx's converter; compile with --verify"
        ),
        stacklevel=2,
    )
    return converted
