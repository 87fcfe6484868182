"""The way of a module through the compiler, as one list of phases."""

from __future__ import annotations

from typing import Any

from pconvgen.passes.lower import LowerLayers
from pconvgen.passes.lower_norms import LowerNorms
from pconvgen.passes.memory import PlanMemory
from pconvgen.passes.resizes import LowerResizes
from pconvgen.passes.rows import LowerRows
from pconvgen.passes.schedule_fallback import ScheduleFallback
from pconvgen.passes.shrink import RemoveDeadChannels
from pconvgen.passes.special_numbers import KeepSpecialNumbers
from pconvgen.passes.transposed import RewriteTransposed
from pconvgen.planning.choose import Planner, plan_layer
from pconvgen.planning.half import check_range
from pconvgen.tvm_compat.llvm import llvm_target
from pconvgen.tvm_compat.lowering import call_kernels, legalise
from pconvgen.tvm_compat.passes import run_passes
from pconvgen.values.decision import Decision
from pconvgen.values.precision import FLOAT32, Precision
from pconvgen.values.target import Target
from pconvgen.watch import phase

Phase = tuple[str, Any]


def phases(
    target: Target,
    *,
    dense: bool = False,
    exact_nan: bool = False,
    precision: Precision = FLOAT32,
    planner: Planner = plan_layer,
) -> list[Phase]:
    """Named passes, in order; each is a TVM pass that works in anybody's own pipeline.

    The front end has already bound the weights, folded masks and batch norm.
    """
    return [
        # Channels that nothing reads disappear together with the filters that make them.
        *([] if dense else [("shrink", RemoveDeadChannels())]),
        # Transposed convolutions become ordinary ones, whose outputs are interleaved.
        ("transposed", RewriteTransposed(target)),
        # What TVM gets wrong where numbers are NaN or infinite.
        ("special numbers", KeepSpecialNumbers()),
        # Convolution with bias, residual and activation, and pooling, become calls of generated kernels.
        ("lower", LowerLayers(target, dense, precision, planner, exact_nan=exact_nan)),
        # Nearest, linear and cubic resizing.
        ("resizes", LowerResizes(target)),
        # Layer norm, variances, and norms of anything but images.
        ("norms", LowerNorms(target)),
        # Softmax, and permutations that move the last axis.
        ("rows", LowerRows(target)),
        # What is left goes through TVM's own legalisation and fusion.
        ("legalise", legalise(llvm_target(target))),
        # The loop nests of that get schedules.
        ("schedule", ScheduleFallback(target)),
        # Kernels write into tensors, and these lie in one arena.
        ("calls", call_kernels(llvm_target(target))),
        ("memory", PlanMemory(target)),
    ]


def decide(
    module: Any,
    target: Target,
    *,
    dense: bool = False,
    precision: Precision = FLOAT32,
    planner: Planner = plan_layer,
) -> tuple[Decision, ...]:
    """What `run` decides about layers: no further than that, and without kernels. Raises what `run` raises."""
    before, ((_, lowering), *_) = _parts(phases(target, dense=dense, precision=precision, planner=planner))
    module = _passed(module, before)
    check_range(module, precision)
    return lowering.decide(module)  # type: ignore[no-any-return]


def run(
    module: Any,
    target: Target,
    *,
    dense: bool = False,
    exact_nan: bool = False,
    precision: Precision = FLOAT32,
    planner: Planner = plan_layer,
) -> Any:
    """The module after all phases, ready to be built.

    Raises PconvgenError when a weight or a bias is too large for its format.
    """
    before, after = _parts(phases(target, dense=dense, exact_nan=exact_nan, precision=precision, planner=planner))
    module = _passed(module, before)
    check_range(module, precision)
    return _passed(module, after)


def _parts(steps: list[Phase]) -> tuple[list[Phase], list[Phase]]:
    """The phases before layers are lowered, and from there on."""
    at = [name for name, _ in steps].index("lower")
    return steps[:at], steps[at:]


def _passed(module: Any, steps: list[Phase]) -> Any:
    for name, transform in steps:
        with phase(name):
            module = run_passes(module, transform)
    return module
