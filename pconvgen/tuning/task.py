"""A layer as the tuner sees it: what may compute it, a library for each way, and what it must compute."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.devices.device import Model
from pconvgen.planning.choose import Layer, ReasonedChoice, plan_layer
from pconvgen.planning.search import all_choices
from pconvgen.records.record import task_key
from pconvgen.targets.linker import library_linker
from pconvgen.templates.choice import Choice
from pconvgen.templates.layout.store import tensor_shape
from pconvgen.tuning.arrays import elements, in_planes
from pconvgen.tuning.reference import convolution
from pconvgen.tvm_compat.building import build, export_library
from pconvgen.tvm_compat.llvm import llvm_target
from pconvgen.tvm_compat.lowering import kernel_module
from pconvgen.values.planes import Places, PlaneLayout
from pconvgen.values.target import Target
from pconvgen.values.workload import ConvWorkload


@dataclass(frozen=True, eq=False)
class Task:
    """One layer, or several that share their records.

    Attributes
    ----------
    names: of the layers, in program order; a layer that is applied twice is there twice.
    layer: the first one, without its place in the module.
    target: what code is generated for.
    places, slots, first: see `plan_layer`.
    """

    names: tuple[str, ...]
    layer: Layer
    target: Target
    places: Places | None
    slots: NDArray[np.int64] | None
    first: tuple[int, int]

    @property
    def name(self) -> str:
        """Of the first of the layers."""
        return self.names[0]

    @property
    def count(self) -> int:
        """How many there are in the network."""
        return len(self.names)

    @property
    def workload(self) -> ConvWorkload:
        """The layer's shapes, epilogue and formats."""
        return self.layer.fused_op.workload

    @cached_property
    def key(self) -> str:
        """Equal for layers that share their records."""
        return task_key(*self.layer.described(self.places))

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """Every legal way to compute it with one kernel, the one predicted to be fastest first."""
        layer = self.layer
        found = all_choices(self.workload, layer.candidates, self.target.core, self.places, families=layer.families)
        return tuple(sorted(found, key=lambda choice: choice.cycles))

    def library(self, choice: Choice, path: Path) -> Model:
        """Builds a library for the target at `path` whose "main" is the layer's kernel.

        Raises what TVM, LLVM and the linker raise.
        """
        plan = plan_layer(
            self.layer,
            self.target,
            self.places,
            slots=self.slots,
            first=self.first,
            chosen=ReasonedChoice(choice, "tried"),
        )
        (instance,) = plan.instances
        w, formats = self.workload, self.workload.precision
        constants = list(instance.constants)
        if w.epilogue.bias:
            assert self.layer.fused_op.bias is not None
            constants.append(self.layer.fused_op.bias.astype(formats.arithmetic))
        inputs = {name: (array.shape, str(array.dtype)) for name, array in self.inputs.items()}
        output = (self._output_shape, formats.activations)
        module = kernel_module(instance.kernel, inputs, constants, output, llvm_target(self.target))
        export_library(build(module, llvm_target(self.target), {}), str(path), library_linker(self.target))
        described = tuple((name, *about) for name, about in inputs.items())
        return Model(path, described, ("output",), self.target.name)

    @cached_property
    def _arrays(self) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Random input and residual, NCHW."""
        w, rng = self.workload, np.random.default_rng(0)
        data = rng.standard_normal((w.batch, w.in_channels, w.height, w.width)).astype(w.precision.activations)
        if not w.epilogue.residual:
            return data, None
        shape = (w.batch, w.out_channels, w.out_height, w.out_width)
        return data, rng.standard_normal(shape).astype(w.precision.activations)

    @cached_property
    def inputs(self) -> dict[str, NDArray[Any]]:
        """Arguments of "main": random data, and what is added, as they lie in memory."""
        w, (data, residual) = self.workload, self._arrays
        slots = np.arange(w.in_channels) if self.slots is None else self.slots
        source = None if self.places is None else self.places.source
        found = {"data": _placed(source, data.astype(w.precision.arithmetic), slots)}
        if residual is not None:
            layout = None if self.places is None else self.places.residual
            found["residual"] = _placed(layout, residual, self.first[1] + np.arange(w.out_channels))
        return found

    @cached_property
    def expected(self) -> NDArray[np.float64]:
        """What the layer makes of `inputs`, NCHW."""
        data, residual = self._arrays
        weight = self.layer.fused_op.weight.astype(self.workload.precision.weights)
        return convolution(self.workload, weight, data, self.layer.fused_op.bias, residual)

    def error(self, output: NDArray[Any]) -> float:
        """Largest error of an output, relative to the largest number; infinite where something is not finite."""
        found = output.reshape(self.expected.shape) if self.places is None else self._elements(self.places, output)
        if not np.isfinite(found).all():
            return float("inf")
        return float(np.abs(found - self.expected).max() / max(1.0, np.abs(self.expected).max()))

    def _elements(self, places: Places, output: NDArray[Any]) -> NDArray[Any]:
        return elements(places.target, output, self.first[0] + np.arange(self.workload.out_channels))

    @property
    def _output_shape(self) -> tuple[int, ...]:
        w = self.workload
        return (w.batch, w.out_channels) if self.places is None else tuple(tensor_shape(self.places.target, w.batch))


def _placed(layout: PlaneLayout | None, data: NDArray[Any], slots: NDArray[Any]) -> NDArray[Any]:
    """A tensor as it lies in memory; without a layout it is a matrix."""
    return data.reshape(len(data), -1) if layout is None else in_planes(layout, data, slots)
