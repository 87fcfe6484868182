"""The peer of single layers: DeepSparse 1.8 (Neural Magic, closed engine, x86), the fastest sparse engine there is.

It knows no structures, so it gets unstructured weights with as many non-zeros. Its times are those that its engine
reports; ours include packing the input.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx

from benchmarks.engines.engine import DEEPSPARSE
from benchmarks.engines.running import Running, running
from benchmarks.layer_data import Data, layer_model
from benchmarks.measuring import REPEATS, Reading
from pconvgen.values.workload import ConvWorkload

REPEAT_S = 0.005


class Peer:
    """A running engine; layers are loaded one at a time."""

    def __init__(self, engine: Running) -> None:
        self._engine = engine

    def load(self, workload: ConvWorkload, data: Data) -> None:
        """Compiles the layer, runs it once and compares the output.

        Raises
        ------
        PconvgenError: the engine fails.
        ValueError: its output is wrong.
        """
        with tempfile.TemporaryDirectory(prefix="pconvgen-layer-") as folder:
            model = Path(folder) / "layer.onnx"
            onnx.save(layer_model(workload, data), str(model))
            (output,) = self._engine.load(model, {"data": data.data}, ["out"])
        data.check(output, DEEPSPARSE.name)

    def read(self) -> Reading:
        """The median of some runs."""
        return self._engine.read(REPEAT_S, REPEATS)


@contextmanager
def peer() -> Iterator[Peer]:
    """The engine, until the block ends.

    Raises PconvgenError when its environment cannot be made.
    """
    with running(DEEPSPARSE) as engine:
        yield Peer(engine)
