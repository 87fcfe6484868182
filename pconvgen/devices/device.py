"""What a device does: run a compiled model and measure it. And the values that go in and out."""

from __future__ import annotations

import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pconvgen.devices.conversion import converted
from pconvgen.devices.units import SECONDS
from pconvgen.elf import check_whole, machine_of
from pconvgen.errors import PconvgenError


@dataclass(frozen=True)
class Model:
    """A compiled model: a Relax executable in a shared library, and how to call its function `main`.

    Attributes
    ----------
    path: the shared library.
    inputs: (name, shape, dtype) of each parameter, in order.
    outputs: a name for each tensor that is returned, in order.
    target: name of the target it was compiled for.
    runtime: what it was compiled for, such as apache-tvm 0.27.0; None where that is not known.
    """

    path: Path
    inputs: tuple[tuple[str, tuple[int, ...], str], ...]
    outputs: tuple[str, ...]
    target: str
    runtime: str | None = None


@dataclass(frozen=True)
class BenchResult:
    """One measurement of a model on a device.

    Attributes
    ----------
    median_ms, min_ms: over `times_ms`; None where the device has no honest clock.
    times_ms: milliseconds of one inference, each value one repeat.
    threads: how many the model could use.
    cores: those that it was kept to; empty where they were not chosen.
    device, target: names of where it ran and of what it was compiled for.
    instructions: executed by one inference, None where the device does not count.
    classes: the instructions by coarse class; they add up to `instructions`.
    cycles: what they take by a static model of the core; None where that was not estimated.
    conditions: what is known of the device at that time: where it was, how hot, at what clock, and how long was waited
        for it to cool down.
    throttled: whether its clock was lowered while it was measured.
    """

    median_ms: float | None
    min_ms: float | None
    times_ms: tuple[float, ...]
    threads: int
    device: str
    target: str
    cores: tuple[int, ...] = ()
    instructions: int | None = None
    classes: Mapping[str, int] = field(default_factory=dict)
    cycles: float | None = None
    conditions: Mapping[str, Any] = field(default_factory=dict)
    throttled: bool = False

    @property
    def spread(self) -> float | None:
        """The distance of the quartiles of `times_ms`, as a share of their median; None without times."""
        if not self.median_ms:
            return None
        low, _, high = statistics.quantiles(self.times_ms, n=4)
        return (high - low) / self.median_ms


class Device(ABC):
    """Where models run. Implementations are frozen values: all that is remembered is on disk, or ends with `session`.

    Attributes
    ----------
    name: its name, as in `pconvgen.devices.DEVICES`.
    """

    name: str

    @property
    def unit(self) -> str:
        """What `measure` measures: SECONDS, or something else where times would mean nothing."""
        return SECONDS

    @property
    def slots(self) -> int:
        """How many requests are answered at the same time, each by a device of its own."""
        return 1

    def clocks(self) -> dict[int, float]:
        """The highest clock of each core in MHz; without those whose clock is not known."""
        return {}

    @property
    def counts(self) -> bool:
        """Whether it counts instructions, as its times would mean nothing."""
        return self.unit != SECONDS

    @abstractmethod
    def available(self) -> str | None:
        """Why it cannot be used on this machine, None when it can."""

    def steps(self) -> list[tuple[str, Callable[[], str]]]:
        """What it takes to reach it, in order: a name, and what finds out how it is or raises PconvgenError."""
        return []

    @abstractmethod
    def facts(self) -> dict[str, object]:
        """What a record says about where it was measured."""

    @abstractmethod
    def run(
        self,
        model: Model,
        inputs: Mapping[str, np.ndarray],
        *,
        threads: int = 1,
        cores: Sequence[int] | None = None,
    ) -> dict[str, np.ndarray]:
        """Outputs by name of one inference, with so many threads, on these cores only.

        Raises
        ------
        UsageError: the device cannot give that many threads, or has no such cores.
        PconvgenError: the inputs do not fit the model, or the model fails, crashes or does not end.
        """

    @abstractmethod
    def measure(
        self,
        model: Model,
        inputs: Mapping[str, np.ndarray],
        *,
        threads: int = 1,
        cores: Sequence[int] | None = None,
        seconds: float = 0.5,
        evict: int = 0,
    ) -> tuple[dict[str, np.ndarray], BenchResult]:
        """Outputs by name of one inference, and a measurement of repeated ones for about `seconds`, at least ten; where
        the device counts, of one.

        Before each, `evict` bytes of something else go through the caches and the inputs are written anew.

        Raises what `run` raises.
        """

    def bench(self, model: Model, inputs: Mapping[str, np.ndarray], **options: Any) -> BenchResult:
        """What `measure` measures, with its options. Raises what `run` raises."""
        return self.measure(model, inputs, **options)[1]

    @contextmanager
    def session(self) -> Iterator[Device]:
        """The device, made ready for many measurements: what can be is done once rather than for each."""
        yield self


def ordered_inputs(model: Model, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The model's inputs in its order, each C-contiguous and of the model's type, into which they are converted.

    Raises
    ------
    PconvgenError: an input is missing, unknown, has another shape, or numbers that its type does not hold; see
        `converted`. (Compiled code does not check.)
    """
    expected = [name for name, _, _ in model.inputs]
    if set(inputs) != set(expected):
        raise PconvgenError(
            "wrong inputs",
            file=model.path,
            found=", ".join(sorted(map(str, inputs))) or "none",
            expected=", ".join(expected),
            remedy="give each input by the name that the model has for it",
        )
    arrays = []
    for name, shape, dtype in model.inputs:
        try:
            array = converted(inputs[name], dtype)
        except ValueError as error:
            raise PconvgenError(
                f"input {name} is not what the model takes",
                file=model.path,
                found=error,
                expected=f"{dtype} {tuple(shape)}, or numbers that fit it",
                remedy="convert it as its values mean it: round, scale or clip",
            ) from error
        if array.shape != tuple(shape):
            raise PconvgenError(
                f"input {name} does not fit",
                file=model.path,
                found=f"{array.dtype} {array.shape}",
                expected=f"{dtype} {tuple(shape)}",
                remedy="convert the array, or compile the model for another shape",
            )
        arrays.append(np.ascontiguousarray(array).reshape(array.shape))
    return arrays


def named_outputs(model: Model, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors that a model returned, by their names.

    Raises
    ------
    PconvgenError: there are more or fewer than the model has names for.
    """
    if len(arrays) != len(model.outputs):
        raise PconvgenError(
            "the library returned another number of outputs",
            file=model.path,
            found=len(arrays),
            expected=f"{len(model.outputs)} ({', '.join(model.outputs)})",
        )
    return dict(zip(model.outputs, arrays, strict=True))


def check_library(model: Model, machine: str, remedy: str) -> None:
    """Checks that a model's library exists and has code for that processor family.

    Raises
    ------
    PconvgenError: it does not exist, is no library, is cut short, or is for another processor family; `remedy` says
        where to run it.
    """
    if not model.path.is_file():
        raise PconvgenError("no such library", file=model.path, remedy="compile the model first")
    found = machine_of(model.path)
    if found != machine:
        raise PconvgenError(
            "the library has code for another processor", file=model.path, found=found, expected=machine, remedy=remedy
        )
    check_whole(model.path)
