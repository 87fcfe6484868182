"""The manifest of a compiled library: how to call it, and what was decided for each layer.

It is a constant of the executable, returned by its function "manifest" on any device and found by its mark in the
file when the library is for another machine.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pconvgen.arena import ActivationMemory
from pconvgen.devices.device import Model
from pconvgen.errors import PconvgenError
from pconvgen.values.decision import Decision
from pconvgen.values.precision import FLOAT32, Precision

MARK = b"pconvgen manifest 1\n"
_LENGTH_DIGITS = 12


@dataclass(frozen=True)
class Manifest:
    """What a library says about itself.

    Attributes
    ----------
    target: name of the target.
    inputs: (name, shape, dtype) of main's parameters, in order.
    outputs: (name, shape, dtype) of its results, in order.
    decisions: one for each convolution and linear layer.
    precision: the formats that were asked for.
    memory: what the activations need, None where that is not known before a run.
    timing: where predicted times come from, or why there are none.
    versions: of pconvgen, TVM and the target's processor.
    """

    target: str
    inputs: tuple[tuple[str, tuple[int, ...], str], ...]
    outputs: tuple[tuple[str, tuple[int, ...], str], ...]
    decisions: tuple[Decision, ...]
    precision: Precision = FLOAT32
    versions: dict[str, str] = field(default_factory=dict)
    timing: str = ""
    memory: ActivationMemory | None = None

    def to_bytes(self) -> np.ndarray:
        """The mark, the length and the JSON text, as uint8."""
        data = asdict(self) | {"decisions": [decision.to_json() for decision in self.decisions]}
        text = json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
        return np.frombuffer(MARK + b"%0*d" % (_LENGTH_DIGITS, len(text)) + text, np.uint8)

    def explain(self) -> dict[str, Any]:
        """The decisions as JSON values: {"target": ..., "layers": [...], "activations": {...}}."""
        return explained(self.target, self.decisions, self.memory, self.timing)

    def model(self, path: Path) -> Model:
        """The library at `path` as devices take it."""
        runtime = f"apache-tvm {self.versions['apache-tvm']}" if "apache-tvm" in self.versions else None
        return Model(path, self.inputs, tuple(name for name, _, _ in self.outputs), self.target, runtime)

    def random_inputs(self, seed: int) -> dict[str, NDArray[Any]]:
        """Inputs that fit: floats are standard normal, bytes any, wider integers 0 or 1, which every index may be."""
        rng = np.random.default_rng(seed)
        return {name: _random(rng, shape, np.dtype(dtype)) for name, shape, dtype in self.inputs}


def _random(rng: np.random.Generator, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind in "iu" and dtype.itemsize == 1:
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return rng.integers(0, 2, shape).astype(dtype)


def explained(
    target: str, decisions: Sequence[Decision], memory: ActivationMemory | None, timing: str
) -> dict[str, Any]:
    """What `explain` writes: the decisions, and the memory of the activations where it is known, as JSON values."""
    activations = {} if memory is None else {"activations": asdict(memory)}
    layers = [decision.to_json() for decision in decisions]
    return {"target": target, "timing": timing, "layers": layers, **activations}


def read_manifest(path: Path) -> Manifest:
    """The manifest of the library at `path`.

    Raises PconvgenError when the file cannot be read or is no library of pconvgen's.
    """
    try:
        with path.open("rb") as file:
            is_library = file.read(4) == b"\x7fELF"
            text = _marked(file) if is_library else None
    except OSError as error:
        raise PconvgenError("cannot be read", file=path, found=error.strerror) from error
    if text is None:
        model = path.suffix.lower() in (".onnx", ".pt2")
        raise PconvgenError(
            "no pconvgen manifest in this file",
            file=path,
            found="a shared library" if is_library else "no shared library",
            expected="a library that `pconvgen compile` wrote",
            remedy=f"compile it first: pconvgen compile {path}" if model else "compile the model again",
        )
    try:
        begin = _LENGTH_DIGITS
        return _from_json(json.loads(text[begin : begin + int(text[:begin])]))
    except (ValueError, KeyError, TypeError) as error:
        raise PconvgenError("the manifest is damaged", file=path, remedy="compile the model again") from error


def _marked(file: BinaryIO) -> bytes | None:
    """What follows MARK in a file, its length first. The file is not read: it may hold a network's weights."""
    with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        begin = data.find(MARK) + len(MARK)
        if begin < len(MARK):
            return None
        digits = data[begin : begin + _LENGTH_DIGITS]
        size = int(digits) if digits.isdigit() else 0
        return data[begin : begin + _LENGTH_DIGITS + size]


def _from_json(data: dict[str, Any]) -> Manifest:
    def specs(rows: list[Any]) -> tuple[tuple[str, tuple[int, ...], str], ...]:
        return tuple((name, tuple(shape), dtype) for name, shape, dtype in rows)

    return Manifest(
        target=data["target"],
        inputs=specs(data["inputs"]),
        outputs=specs(data["outputs"]),
        decisions=tuple(Decision.from_json(row) for row in data["decisions"]),
        precision=Precision.from_json(data["precision"]),
        versions=data["versions"],
        timing=data.get("timing", ""),
        memory=None if data.get("memory") is None else ActivationMemory(**data["memory"]),
    )
