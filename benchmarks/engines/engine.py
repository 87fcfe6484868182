"""The engines that are measured, and what each needs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Engine:
    """An engine.

    Attributes
    ----------
    name: as tables print it.
    session: key of SESSIONS in benchmarks/engines/guest/sessions.py.
    requirements: what its environment needs, the engine first; none for what runs in pconvgen's own.
    newest: the newest Python that it has wheels for.
    """

    name: str
    session: str
    requirements: tuple[str, ...] = ()
    newest: tuple[int, int] = (3, 13)

    @property
    def version(self) -> str:
        """The version that is pinned."""
        return self.requirements[0].split("==")[1]

    def python(self) -> Path:
        """Its Python. Raises what `environment` raises."""
        if not self.requirements:
            return Path(sys.executable)
        from benchmarks.engines.environments import environment

        return environment(self.name, self.requirements, self.newest)


ONNXRUNTIME = Engine("onnxruntime", "onnxruntime", ("onnxruntime==1.31.1",))
OPENVINO = Engine("OpenVINO", "openvino", ("openvino==2026.4.1",))
MNN = Engine("MNN", "mnn", ("mnn==3.6.1", "numpy"))
NCNN = Engine("ncnn", "ncnn", ("ncnn==1.0.20261020", "pnnx==20261020", "numpy"))
LITERT = Engine("LiteRT", "litert", ("ai-edge-litert==2.3.0", "flatbuffers", "onnx==1.23.2"))
DEEPSPARSE = Engine("DeepSparse", "deepsparse", ("deepsparse==1.8.0", "numpy<2", "onnx==1.14.1"), newest=(3, 11))
_TVM = ("apache-tvm==0.27.0.post1", "apache-tvm-ffi==0.1.14.post1", "onnx==1.23.2", "numpy", "psutil", "cloudpickle")
TVM = Engine("TVM untuned", "tvm untuned", (*_TVM, "xgboost-cpu"))
TVM_TUNED = Engine("TVM MetaSchedule", "tvm tuned", TVM.requirements)
LIBRARY = Engine("pconvgen", "tvm")
"""What pconvgen compiles, in TVM's plain runtime."""

DENSE = (ONNXRUNTIME, OPENVINO, MNN, NCNN, LITERT, DEEPSPARSE, TVM, TVM_TUNED)
"""Engines that get networks which are not pruned."""
