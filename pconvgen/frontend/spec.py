"""What a front end hands over, and the checks that all of them share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pconvgen.errors import PconvgenError, UsageError
from pconvgen.frontend.origins import Origins
from pconvgen.tvm_compat.relax import Module

NamedArrays = Mapping[str, NDArray[Any]]
"""Tensors by name: inputs of a network, or outputs."""
Shape = tuple[int, ...]
DTYPE = "float32"


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a model: its name in the model, its static shape, its dtype."""

    name: str
    shape: Shape
    dtype: str = DTYPE


@dataclass(frozen=True, eq=False)
class Judge:
    """Who says what a model computes: the framework that it comes from.

    Attributes
    ----------
    name: of the framework, with its version.
    run: the model in it: input name -> array in, output name -> array out.
    """

    name: str
    run: Callable[[NamedArrays], NamedArrays]


@dataclass(frozen=True, eq=False)
class Imported:
    """A model as the compiler takes it.

    Attributes
    ----------
    module: IRModule whose "main" has the inputs as its parameters, in order; one dataflow block, weights bound as
        constants, masks and batch norm folded. Several outputs are returned as a tuple.
    inputs, outputs: in the order of main's parameters and results, named as the model names them.
    layer_names: name of the variable that a convolution or matmul is bound to -> name of the layer in the model.
        Also kept as attribute "pconvgen.layers" of main. A layer that is applied twice has two variables.
    judge: runs the model in its own framework.
    source: the file, or the class of the module.
    arithmetic: what the model itself computes in where that is coarser than float32: int8, float16 or bfloat16.
    quantised: the layers whose weights are quantised in the model.
    origins: the nodes of the model that variables come from, for messages.
    """

    module: Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layer_names: Mapping[str, str]
    judge: Judge
    source: str
    arithmetic: str = DTYPE
    quantised: frozenset[str] = frozenset()
    origins: Origins = field(default_factory=Origins)

    def reference(self, values: NamedArrays) -> NamedArrays:
        """What the judge computes: input name -> array in, output name -> array out. Raises what it raises."""
        return self.judge.run(values)


def resolve_shapes(
    declared: Mapping[str, Sequence[int | None]], requested: Mapping[str, Sequence[int]] | None, source: str
) -> dict[str, Shape]:
    """The static shape of every input: as the model declares it, its dynamic dimensions (None) as requested.

    Raises UsageError when a request names no input, has the wrong rank, contradicts a static dimension or is not
    positive, and when a dynamic dimension is not requested.
    """
    requested = requested or {}
    for name in requested:
        if name not in declared:
            raise UsageError(
                "the model has no such input",
                file=source,
                found=name,
                expected=" or ".join(declared),
                remedy="name one of the model's inputs: --input NAME=1,3,224,224",
            )
    return {name: _resolve(name, shape, requested.get(name), source) for name, shape in declared.items()}


def _resolve(name: str, declared: Sequence[int | None], requested: Sequence[int] | None, source: str) -> Shape:
    wanted = "x".join("?" if size is None else str(size) for size in declared)
    example = ",".join("N" if size is None else str(size) for size in declared)
    if requested is None:
        if None in declared:
            raise UsageError(
                f"input {name} has dynamic dimensions",
                file=source,
                found=wanted,
                expected="a static shape",
                remedy=f"give its shape: --input {name}={example}",
            )
        requested = [size for size in declared if size is not None]
    found = "x".join(str(size) for size in requested) or "a scalar"
    if len(requested) != len(declared):
        raise UsageError(
            f"the shape of input {name} has the wrong rank",
            file=source,
            found=f"{len(requested)} dimensions ({found})",
            expected=f"{len(declared)} ({wanted})",
            remedy=f"give its shape: --input {name}={example}",
        )
    if any(size is not None and size != new for size, new in zip(declared, requested, strict=True)):
        raise UsageError(
            f"input {name} has a fixed shape",
            file=source,
            found=found,
            expected=wanted,
            remedy="export the model with the shape you want, or with a dynamic dimension",
        )
    if any(size < 1 for size in requested):
        raise UsageError(
            f"input {name} has no elements",
            file=source,
            found=found,
            expected="dimensions of at least 1",
            remedy=f"give a positive shape: --input {name}=1,3,224,224",
        )
    return tuple(int(size) for size in requested)


INPUT_DTYPES = ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
"""Types of inputs that stay as they are; floats are computed in float32."""
FLOATS = ("float32", "float64", "float16", "bfloat16")


def check_dtype(kind: str, name: str, dtype: str, source: str) -> None:
    """Raise unless a weight is float32."""
    if dtype != DTYPE:
        raise PconvgenError(
            f"{kind} {name} has an unsupported dtype",
            file=source,
            found=dtype,
            expected=DTYPE,
            remedy="convert the model to float32 before you export it, e.g. model.float()",
        )


def check_input_dtype(name: str, dtype: str, source: str) -> None:
    """Raise unless an input is of numbers that the compiler takes."""
    if dtype not in INPUT_DTYPES + FLOATS:
        raise PconvgenError(
            f"input {name} has an unsupported dtype",
            file=source,
            found=dtype,
            expected=", ".join(FLOATS + INPUT_DTYPES),
            remedy="convert it in the model or before it, e.g. to float32",
        )


def at_the_ends(dtype: str) -> str:
    """The type of an input or output that the model declares as `dtype`: the same, where NumPy and C have it."""
    return DTYPE if dtype == "bfloat16" else dtype


def as_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """Floats as float32; what is too large becomes the largest number rather than infinity, as in masks."""
    limit = float(np.finfo(np.float32).max)
    return np.where(np.isfinite(array), np.clip(array, -limit, limit), array).astype(np.float32)


def check_finite(layer: str, name: str, value: NDArray[Any], source: str) -> None:
    """Raise when a weight has NaN or infinite elements."""
    if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
        bad = int(value.size - np.isfinite(value).sum())
        raise PconvgenError(
            f"{name} is not finite",
            file=source,
            layer=layer,
            found=f"{bad} NaN or infinite of {value.size} elements",
            expected="finite weights",
            remedy="check the training or pruning run that wrote this model",
        )


def check_batch_statistics(training: bool, layer: str, source: str) -> None:
    """Raise when a batch norm or dropout was exported in training mode."""
    if training:
        raise PconvgenError(
            "this layer was exported in training mode",
            file=source,
            layer=layer,
            expected="evaluation mode",
            remedy="call model.eval() before you export the model",
        )


def variable_name(layer: str) -> str:
    """`layer` as an identifier: "features.3" -> "features_3", "0" -> "layer_0"."""
    name = re.sub(r"\W", "_", layer)
    return name if name[:1].isalpha() or name[:1] == "_" else f"layer_{name}"


def unique(name: str, taken: Mapping[str, Any]) -> str:
    """`name`, or with the first free suffix when it is taken: "conv", "conv_2"."""
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    return candidate
