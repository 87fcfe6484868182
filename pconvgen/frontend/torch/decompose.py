"""ATen operators that TVM's importer lacks or gets wrong, replaced by simpler ones as PyTorch itself defines them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch._decomp import decomposition_table

from pconvgen.frontend.torch.calls import arguments
from pconvgen.frontend.torch.constants import fold_constants
from pconvgen.frontend.torch.functional import functional, retraced
from pconvgen.frontend.torch.outputs import check_state


def decompose(
    program: torch.export.ExportedProgram, known: Collection[str], source: str
) -> torch.export.ExportedProgram:
    """The same program without in-place operators and what depends on constants only; operators that are not `known`
    or misread are decomposed if possible.

    Raises PconvgenError when the program has a state.
    """
    program = functional(program)
    check_state(program, source)
    program = fold_constants(program)
    for target in _wanted(program, known):
        simpler = _without(program, target, known)
        # What does not become known operators stays as it is, so that errors name what the model has.
        if not _unknown(simpler, known) - _unknown(program, known):
            program = simpler
    return fold_constants(program)


def _without(program: torch.export.ExportedProgram, target: Any, known: Collection[str]) -> Any:
    """`program` with `target` and what it is decomposed into decomposed, as far as PyTorch has rules for it."""
    rules = {**decomposition_table, **torch.export.default_decompositions()}
    others = set(_wanted(program, known)) - {target}
    done: set[Any] = set()
    while True:
        table = {each: rules[each] for each in _wanted(program, known) if each in rules and each not in others | done}
        if not table:
            return program
        program = retraced(program, table)
        done |= table.keys()


def _unknown(program: torch.export.ExportedProgram, known: Collection[str]) -> set[Any]:
    calls = [node.target for node in program.graph.nodes if node.op == "call_function"]
    return {target for target in calls if target.__name__ not in known}


def _wanted(program: torch.export.ExportedProgram, known: Collection[str]) -> list[Any]:
    """The operators to decompose, in the program's order."""
    found: dict[Any, None] = {}
    for node in program.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            misread = _MISREAD.get(node.target.__name__)
            if misread(arguments(node)) if misread else node.target.__name__ not in known:
                found[node.target] = None
    return list(found)


def _always(_args: dict[str, Any]) -> bool:
    return True


def _with_scales(args: dict[str, Any]) -> bool:
    return args["scale"] != 1 or args["input_scale"] != 1


def _unusual_attention(args: dict[str, Any]) -> bool:
    # TVM has NaN where a row is masked whole, PyTorch zeros.
    masked = args["attn_mask"] is not None
    return masked or args["scale"] is not None or args["query"].meta["val"].dim() not in (2, 4)


# What TVM 0.27 makes of these operators when this holds for their arguments.
_MISREAD: dict[str, Callable[[dict[str, Any]], bool]] = {
    "celu.default": _always,  # divides exp(x) and not x by alpha
    "clamp_max.default": _always,  # looks for the bound in the wrong place and does not find it
    "elu.default": _with_scales,  # drops them
    "gru.input": _always,  # returns its outputs for its last state
    "lstm.input": _always,  # returns its outputs for its last states, without a word where a sequence has one element
    "pixel_shuffle.default": _always,  # becomes a kernel that TVM does not have
    "rnn_relu.input": _always,  # returns its outputs for its last state
    "rnn_tanh.input": _always,  # likewise
    "rsub.Scalar": _always,  # an integer becomes an int32 tensor, and alpha is dropped
    "rsub.Tensor": _always,  # drops alpha
    "scaled_dot_product_attention.default": _unusual_attention,  # drops the scale, refuses ranks and masks
}
