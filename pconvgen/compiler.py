"""Compiling a model: from anything the front ends read to a library that runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pconvgen.blame import attempt
from pconvgen.frontend import Imported, load_model
from pconvgen.manifest import Manifest
from pconvgen.model import CompiledModel
from pconvgen.passes.lower import decisions_of
from pconvgen.passes.memory import memory_of
from pconvgen.pipeline import decide as decide_layers
from pconvgen.pipeline import run
from pconvgen.planning.choose import Planner, plan_layer
from pconvgen.planning.experience import Experience, experience
from pconvgen.targets.formats import check_formats
from pconvgen.targets.linker import library_linker
from pconvgen.targets.presets import get_target
from pconvgen.tvm_compat.building import Executable, build, export_library
from pconvgen.tvm_compat.llvm import llvm_target
from pconvgen.values.decision import Decision
from pconvgen.values.precision import FLOAT32, Precision, precision
from pconvgen.values.target import Target
from pconvgen.watch import phase


@dataclass(frozen=True, eq=False)
class BuiltModel(CompiledModel):
    """A model that was just compiled.

    Attributes
    ----------
    imported: the model as the front end read it, with its judge.
    """

    imported: Imported
    _executable: Executable

    @property
    def source(self) -> Path:
        """The model's file, or the class of the module."""
        return Path(self.imported.source)

    def _write(self, path: Path) -> None:
        with phase("link"):
            export_library(self._executable, str(path), library_linker(self.target))


def compile(
    model: Any,
    target: str = "host",
    *,
    inputs: Mapping[str, Sequence[int]] | None = None,
    example: Sequence[Any] | None = None,
    dense: bool = False,
    exact_nan: bool = False,
    dtype: str = "float32",
    accumulate: str | None = None,
    weights: str | None = None,
    records: str | Path | None = None,
    latency: str | Path | None = None,
    planner: Planner | None = None,
) -> BuiltModel:
    """Compiles a pruned model.

    Parameters
    ----------
    model: path of a .pt2 or .onnx file, a torch.nn.Module, a torch.export.ExportedProgram, or what `load_model`
        returned.
    target: name of a preset, see `pconvgen targets`.
    inputs: input name -> shape, for dynamic dimensions and for modules.
    example: for a module, its example inputs in place of `inputs`.
    dense: ignore the zeros in the weights, to compare with.
    exact_nan: leave out Winograd, and encodings that store zeros between the weights of transposed convolutions, so
        that NaN and infinities reach no outputs but those whose windows hold them. What is multiplied by a pruned
        weight is still left out, whatever it is, unless `dense` is set as well.
    dtype: of activations, float32 or float16; the model's inputs and outputs are float32 in either.
    accumulate: of sums; without it, `dtype`.
    weights: of weights in the library; without it, `dtype`.
    records: a file that `pconvgen tune` wrote. Layers of which it has records of this target, and for the host of this
        machine's processor, get the schedule that was measured to be fastest.
    latency: what `pconvgen latency fit` wrote; predicts the times of layers without a record. For both see
        `pconvgen.planning.experience`.
    planner: decides in place of those how layers are computed.

    Raises
    ------
    UsageError: the target is unknown or does not compute in these formats, the inputs do not fit the model, or the
        latency model is of another target or device.
    PconvgenError: the model cannot be read, has an operator that nobody can lower, or a weight too large for its
        format.
    """
    preset, formats = get_target(target), precision(dtype, accumulate=accumulate, weights=weights)
    check_formats(preset, formats)
    with phase("read"):
        imported = model if isinstance(model, Imported) else load_model(model, inputs, example=example)
    if planner is None:
        paths = [None if path is None else Path(path) for path in (records, latency)]
        planner = experience(preset, *paths)
    lowered, decisions = lower(imported, preset, dense=dense, exact_nan=exact_nan, precision=formats, planner=planner)
    decisions = tuple(
        replace(decision, reason=f"{decision.reason}; int8 in the model, computed in float32")
        if decision.name in imported.quantised
        else decision
        for decision in decisions
    )
    outputs = tuple((spec.name, spec.shape, spec.dtype) for spec in imported.outputs)
    manifest = Manifest(
        target=preset.name,
        inputs=tuple((spec.name, spec.shape, spec.dtype) for spec in imported.inputs),
        outputs=outputs,
        decisions=decisions,
        precision=formats,
        versions={"pconvgen": version("pconvgen"), "apache-tvm": version("apache-tvm"), "cpu": preset.cpu},
        memory=memory_of(lowered),
        timing=planner.timing if isinstance(planner, Experience) else "",
    )
    constants = {"manifest": manifest.to_bytes()}

    def again(module: Any) -> Executable:
        passed = run(module, preset, dense=dense, exact_nan=exact_nan, precision=formats, planner=planner)
        return build(passed, llvm_target(preset), constants)

    with phase("build"):
        executable = attempt("build", imported, lambda: build(lowered, llvm_target(preset), constants), again)
    return BuiltModel(preset, manifest, imported, executable)


def lower(
    imported: Imported,
    target: Target,
    *,
    dense: bool = False,
    exact_nan: bool = False,
    precision: Precision = FLOAT32,
    planner: Planner = plan_layer,
) -> tuple[Any, tuple[Decision, ...]]:
    """The model's module after all passes, and what they decided; nothing is built yet.

    Raises PconvgenError when TVM cannot lower an operator, or a weight does not fit its format.
    """

    def passed(module: Any) -> Any:
        return run(module, target, dense=dense, exact_nan=exact_nan, precision=precision, planner=planner)

    lowered = attempt("lower", imported, lambda: passed(imported.module), passed)
    return lowered, decisions_of(lowered)


def decide(imported: Imported, target: Target, *, planner: Planner = plan_layer) -> tuple[Decision, ...]:
    """What `lower` decides, without making kernels. Raises what it raises."""

    def decided(module: Any) -> Any:
        return decide_layers(module, target, planner=planner)

    return attempt("lower", imported, lambda: decided(imported.module), decided)
