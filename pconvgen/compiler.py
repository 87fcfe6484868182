"""Compiling a model: from anything the front ends read to a library that runs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pconvgen.decision import Decision
from pconvgen.devices import BenchResult, Device, Model, get_device
from pconvgen.devices.device import named_outputs, ordered_inputs
from pconvgen.errors import PconvgenError, UsageError
from pconvgen.experience import Experience, experience
from pconvgen.files import replacing
from pconvgen.frontend import Imported, load_model
from pconvgen.frontend.spec import last_line
from pconvgen.manifest import Manifest
from pconvgen.passes.choose import Planner, plan_layer
from pconvgen.passes.lower import decisions_of
from pconvgen.passes.memory import memory_of
from pconvgen.pipeline import run
from pconvgen.precision import FLOAT32, Precision, precision
from pconvgen.targets.formats import check_formats
from pconvgen.targets.linker import library_linker
from pconvgen.targets.presets import get_target, llvm_target
from pconvgen.targets.target import Target
from pconvgen.tvm_compat import Executable, build, export_library, local_function

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class CompiledModel:
    """A model compiled for one target.

    Attributes
    ----------
    imported: the model as the front end read it, with its reference.
    target: what it was compiled for.
    manifest: how to call it and what was decided; the library carries it.
    """

    imported: Imported
    target: Target
    manifest: Manifest
    _executable: Executable

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What was decided for each convolution and linear layer, in program order."""
        return self.manifest.decisions

    def explain(self) -> dict[str, Any]:
        """The decisions as JSON values: {"target": ..., "layers": [...], "activations": {...}}."""
        return self.manifest.explain()

    def export(self, path: str | Path) -> Path:
        """Writes the shared library, whole or not at all; equal models give equal bytes.

        Raises PconvgenError when there is no linker or the path cannot be written.
        """
        path = Path(path)
        with replacing(path) as temporary:
            export_library(self._executable, str(temporary), library_linker(self.target))
        return path

    def run(
        self, inputs: Arrays | NDArray[Any], *, threads: int | None = None, cores: Sequence[int] | None = None
    ) -> dict[str, NDArray[Any]]:
        """One inference: input name -> array (or the only input's array) in, output name -> array out.

        With a number of threads or a set of cores it is a process of its own, because both are settled once for a
        process. A library for ARM runs under emulation.

        Raises
        ------
        UsageError: the device cannot give that many threads, or has no such cores.
        PconvgenError: the inputs do not fit the model, or it needs an emulator that is not there.
        """
        named = self._named(inputs)
        if not self.target.is_host or threads is not None or cores is not None:
            with tempfile.TemporaryDirectory(prefix="pconvgen-") as folder:
                count = 1 if threads is None else threads
                return self._device().run(self._exported(Path(folder)), named, threads=count, cores=cores)
        model = self._model(Path(self.imported.source))
        return named_outputs(model, self._main(ordered_inputs(model, named)))

    def bench(
        self,
        inputs: Arrays | NDArray[Any] | None = None,
        *,
        threads: int = 1,
        cores: Sequence[int] | None = None,
    ) -> BenchResult:
        """Measures inferences on this machine, or counts instructions under emulation for ARM. Raises what `run` does.

        Parameters
        ----------
        inputs: as those of `run`; random ones when None.
        threads: how many the model may use.
        cores: numbers of the cores that it is kept to; all when None.
        """
        named = self.manifest.random_inputs(0) if inputs is None else self._named(inputs)
        with tempfile.TemporaryDirectory(prefix="pconvgen-") as folder:
            return self._device().bench(self._exported(Path(folder)), named, threads=threads, cores=cores)

    @cached_property
    def _main(self) -> Any:
        # From an exported library: running LLVM's module in place would change what a later export writes.
        with tempfile.TemporaryDirectory(prefix="pconvgen-") as folder:
            return local_function(self.export(Path(folder) / "model.so"), "main")

    def _named(self, inputs: Arrays | NDArray[Any]) -> Arrays:
        if isinstance(inputs, Mapping):
            return inputs
        if len(self.manifest.inputs) != 1:
            names = ", ".join(name for name, _, _ in self.manifest.inputs)
            raise UsageError("the model has several inputs", found="one array", expected=f"a dict of {names}")
        return {self.manifest.inputs[0][0]: inputs}

    def _device(self) -> Device:
        return get_device("local" if self.target.is_host else "emulated")

    def _exported(self, folder: Path) -> Model:
        return self._model(self.export(folder / "model.so"))

    def _model(self, path: Path) -> Model:
        return self.manifest.model(path)


def compile(
    model: Any,
    target: str = "host",
    *,
    inputs: Mapping[str, Sequence[int]] | None = None,
    example: Sequence[Any] | None = None,
    dense: bool = False,
    dtype: str = "float32",
    accumulate: str | None = None,
    weights: str | None = None,
    records: str | Path | None = None,
    latency: str | Path | None = None,
    planner: Planner | None = None,
) -> CompiledModel:
    """Compiles a pruned model.

    Parameters
    ----------
    model: path of a .pt2 or .onnx file, a torch.nn.Module, a torch.export.ExportedProgram, or what `load_model`
        returned.
    target: name of a preset, see `pconvgen targets`.
    inputs: input name -> shape, for dynamic dimensions and for modules.
    example: for a module, its example inputs in place of `inputs`.
    dense: ignore the zeros in the weights, to compare with.
    dtype: of activations, float32 or float16; the model's inputs and outputs are float32 in either.
    accumulate: of sums; without it, `dtype`.
    weights: of weights in the library; without it, `dtype`.
    records: a file that `pconvgen tune` wrote. Layers of which it has records of this target, and for the host of this
        machine's processor, get the schedule that was measured to be fastest.
    latency: what `pconvgen latency fit` wrote; predicts the times of layers without a record. For both see
        `pconvgen.experience`.
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
    imported = model if isinstance(model, Imported) else load_model(model, inputs, example=example)
    if planner is None:
        paths = [None if path is None else Path(path) for path in (records, latency)]
        planner = experience(preset, *paths)
    lowered, decisions = lower(imported, preset, dense=dense, precision=formats, planner=planner)
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
    with _tvm_errors("build", imported):
        executable = build(lowered, llvm_target(preset), {"manifest": manifest.to_bytes()})
    return CompiledModel(imported, preset, manifest, executable)


def lower(
    imported: Imported,
    target: Target,
    *,
    dense: bool = False,
    precision: Precision = FLOAT32,
    planner: Planner = plan_layer,
) -> tuple[Any, tuple[Decision, ...]]:
    """The model's module after all passes, and what they decided; nothing is built yet.

    Raises PconvgenError when TVM cannot lower an operator, or a weight does not fit its format.
    """
    with _tvm_errors("lower", imported):
        lowered = run(imported.module, target, dense=dense, precision=precision, planner=planner)
    return lowered, decisions_of(lowered)


@contextmanager
def _tvm_errors(action: str, imported: Imported) -> Iterator[None]:
    """TVM raises many kinds of errors; what a user can do about them is the same."""
    try:
        yield
    except PconvgenError:
        raise
    except Exception as error:
        raise PconvgenError(
            f"TVM cannot {action} this model",
            file=imported.source,
            found=last_line(error),
            remedy="replace the operator it names, or report it with the model",
        ) from error
