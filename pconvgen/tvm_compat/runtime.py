"""TVM's runtime on this machine: libraries, tensors, threads. Needs nothing of TVM's compiler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import tvm
from numpy.typing import NDArray
from tvm.runtime.vm import VirtualMachine

_ONE_CORE_PER_THREAD = -2

LibraryFunction = Callable[[list[NDArray[Any]]], list[NDArray[Any]]]
"""A function of a library, from arrays to arrays of the caller's own."""


def load(library: Path) -> VirtualMachine:
    """The virtual machine of a library for this machine, name -> function of tensors; the file may go then."""
    return VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())


def tensor(array: NDArray[Any]) -> tvm.runtime.Tensor:
    """A copy in memory aligned as kernels assume; TVM does not check that of an array it is handed."""
    return tvm.runtime.tensor(array)


def tensors_of(result: Any) -> list[tvm.runtime.Tensor]:
    """The tensors of a result that is a tensor or a (nested) tuple of them."""
    return [result] if hasattr(result, "numpy") else [each for part in result for each in tensors_of(part)]


def local_function(library: Path, name: str) -> LibraryFunction:
    """A function of a library for this machine; the file may go once this returns.

    Threads take turns: a virtual machine keeps its registers and the activations' memory, and two calls at once end the
    process.
    """
    machine, turn = load(library), Lock()

    def call(arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
        tensors = [tensor(array) for array in arrays]
        with turn:
            return [each.numpy() for each in tensors_of(machine[name](*tensors))]

    return call


def seconds_of(machine: VirtualMachine, tensors: list[Any], number: int, repeats: int) -> list[float]:
    """Seconds of one call of "main", for each repeat the mean of `number` calls."""
    return list(machine.time_evaluator("main", tvm.cpu(), number=number, repeat=repeats)(*tensors).results)


def keep_to_cores(threads: int, cores: Sequence[int]) -> None:
    """Has TVM's threads run on `cores`. By itself it binds them to the first cores of the machine, whatever is allowed.

    Each thread but the main one gets a core of its own.
    """
    configure = tvm.get_global_func("runtime.config_threadpool")
    configure(_ONE_CORE_PER_THREAD, threads, [str(core) for core in cores])
