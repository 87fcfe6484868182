"""A compiled model: to run, to measure and to explain, whether it was just compiled or is loaded from a library."""

from __future__ import annotations

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from numpy.typing import NDArray

from pconvgen.devices import BenchResult, Device, Model, get_device
from pconvgen.devices.device import named_outputs, ordered_inputs
from pconvgen.elf import check_whole
from pconvgen.errors import PconvgenError, UsageError, last_line
from pconvgen.files import replacing
from pconvgen.manifest import Manifest, read_manifest
from pconvgen.targets.presets import get_target
from pconvgen.tvm_compat.runtime import LibraryFunction, local_function
from pconvgen.values.decision import Decision
from pconvgen.values.target import Target

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class CompiledModel(ABC):
    """A model compiled for one target.

    Any number of threads may use one object: their runs in this process take turns, since a model has one memory for
    its activations. Runs at the same time need an object each, e.g. of `load`.

    Attributes
    ----------
    target: what it was compiled for.
    manifest: how to call it and what was decided; the library carries it.
    """

    target: Target
    manifest: Manifest
    _loading: Lock = field(default_factory=Lock, init=False, repr=False)
    _loaded: list[LibraryFunction] = field(default_factory=list, init=False, repr=False)

    @property
    @abstractmethod
    def source(self) -> Path:
        """Where it comes from, for messages."""

    @abstractmethod
    def _write(self, path: Path) -> None:
        """Writes the shared library to a new file."""

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
            self._write(temporary)
        return path

    def run(
        self, *inputs: Any, threads: int | None = None, cores: Sequence[int] | None = None
    ) -> dict[str, NDArray[Any]]:
        """One inference: output name -> array, which is the caller's own.

        With a number of threads or a set of cores it is a process of its own, because both are settled once for a
        process. A library for ARM runs under emulation.

        Parameters
        ----------
        inputs: an array for each input, in the model's order; or one list of them, or one dict of them by name.
        threads: how many the model may use.
        cores: numbers of the cores that it is kept to.

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
        model = self.manifest.model(self.source)
        return named_outputs(model, self._main()(ordered_inputs(model, named)))

    def bench(self, *inputs: Any, threads: int = 1, cores: Sequence[int] | None = None) -> BenchResult:
        """Measures inferences on this machine, or counts instructions under emulation for ARM. Raises what `run` does.

        Parameters
        ----------
        inputs: as those of `run`; random ones when there are none.
        threads: how many the model may use.
        cores: numbers of the cores that it is kept to; all when None.
        """
        named = self._named(inputs) if inputs else self.manifest.random_inputs(0)
        with tempfile.TemporaryDirectory(prefix="pconvgen-") as folder:
            return self._device().bench(self._exported(Path(folder)), named, threads=threads, cores=cores)

    def _main(self) -> LibraryFunction:
        with self._loading:
            if not self._loaded:
                # From a file: what was built are object files.
                with tempfile.TemporaryDirectory(prefix="pconvgen-") as folder:
                    library = self.export(Path(folder) / "model.so")
                    try:
                        self._loaded.append(local_function(library, "main"))
                    except Exception as error:
                        raise PconvgenError(
                            "this library cannot be loaded",
                            file=self.source,
                            found=last_line(error),
                            remedy="copy the file again, or compile the model again with the TVM that is installed",
                        ) from error
            return self._loaded[0]

    def _named(self, inputs: tuple[Any, ...]) -> Arrays:
        """What `run` was given, by the model's names."""
        names = [name for name, _, _ in self.manifest.inputs]
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            return inputs[0]
        if len(inputs) == 1 and isinstance(inputs[0], list | tuple) and self._are_all(inputs[0]):
            inputs = tuple(inputs[0])
        if len(inputs) != len(names):
            raise UsageError(
                "the model has another number of inputs",
                file=self.source,
                found=f"{len(inputs)} array{'' if len(inputs) == 1 else 's'}",
                expected=f"{len(names)}: {', '.join(names)}",
                remedy="give an array for each, in this order, or a dict of them",
            )
        return dict(zip(names, inputs, strict=True))

    def _are_all(self, values: Sequence[Any]) -> bool:
        """Whether a list is one of all inputs, and not the only input written as a list."""
        if len(self.manifest.inputs) != 1:
            return True
        return len(values) == 1 and getattr(values[0], "ndim", None) == len(self.manifest.inputs[0][1])

    def _device(self) -> Device:
        return get_device("local" if self.target.is_host else "emulated")

    def _exported(self, folder: Path) -> Model:
        return self.manifest.model(self.export(folder / "model.so"))


@dataclass(frozen=True, eq=False)
class LoadedModel(CompiledModel):
    """A model in a library.

    Attributes
    ----------
    path: of the library; it has to stay where it is.
    """

    path: Path

    @property
    def source(self) -> Path:
        """The library."""
        return self.path

    def _write(self, path: Path) -> None:
        shutil.copyfile(self.path, path)


def load(path: str | Path) -> CompiledModel:
    """A library that `CompiledModel.export` or `pconvgen compile` wrote, for any target.

    Raises PconvgenError when the file is no such library, is cut short, or is for a target that is not known here.
    """
    path = Path(path)
    manifest = read_manifest(path)
    check_whole(path)
    try:
        target = get_target(manifest.target)
    except UsageError as error:
        raise PconvgenError(
            "this library is for a target that is not known here",
            file=path,
            found=manifest.target,
            expected=error.expected,
            remedy="compile the model again",
        ) from error
    return LoadedModel(target, manifest, path)
