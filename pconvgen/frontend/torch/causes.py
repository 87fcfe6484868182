"""Why torch.export cannot export a model: what it says first, and the line of the model that it says it of."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

import torch

from pconvgen.errors import PconvgenError

_OTHERS = (
    Path(torch.__file__).parent,
    Path(__file__).parents[2],
    Path(sysconfig.get_paths()["stdlib"]) / "contextlib.py",
)
"""Where the lines of a traceback are that are not the model's."""


def export_error(error: BaseException, source: str) -> PconvgenError:
    """What to tell of an exception of torch.export.

    The innermost line outside of PyTorch is the model's, or a library's that it calls: of a detector the one in
    batched_nms, of which the user is told how to go on.
    """
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame for frame in frames if not any(Path(frame.filename).is_relative_to(place) for place in _OTHERS)]
    found = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if lines:
        last = lines[-1]
        found += f", at {Path(last.filename).name}:{last.lineno} in {last.name}: {last.line}"
    remedy = "make torch.export.export(model, example) work, or choose another input shape"
    if any("nms" in f"{frame.name} {frame.line}" for frame in lines):
        remedy = (
            "export the network without its non-maximum suppression, whose number of boxes depends on the data, and run"
            " that on the outputs"
        )
    elif type(error).__name__ == "GuardOnDataDependentSymNode":
        remedy = "export the network without what depends on its data, such as conditions and sizes"
    return PconvgenError(
        "torch.export cannot export this model for these inputs", file=source, found=found, remedy=remedy
    )
