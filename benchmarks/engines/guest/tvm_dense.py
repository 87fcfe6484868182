"""The dense peer TVM as it is to be had: its own ONNX importer and pipeline, untuned or tuned with MetaSchedule.

Runs in the peer's environment, not in pconvgen's. Tuning takes minutes to hours, so a network is tuned once: the
records lie in the environment's folder, by network, number of trials and processor, and go when that is made anew.
"""

import importlib
import importlib.util
import os
import subprocess
import sys
import types
from pathlib import Path

import onnx
import tvm
from tvm import relax

TRIALS = 32
"""For each distinct operator."""


def convert(source, tuned):
    """Writes the library of an ONNX file beside it, as untuned.so or tuned.so."""
    module = fused(source)
    if tuned:
        folder = Path(sys.prefix) / f"{source.stem}-{TRIALS}-{cpu()['mcpu']}"
        if not (folder / "done").is_file():
            # A process of its own: the pools that MetaSchedule starts do not always end.
            command = [sys.executable, "-I", __file__, str(source), str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if not (folder / "done").is_file():
                raise RuntimeError(f"MetaSchedule: {done.stderr[-300:]}")
        _fast_intrinsics()
        with tvm.target.Target(cpu()):
            module = relax.transform.MetaScheduleApplyDatabase(str(folder))(module)
    executable = tvm.compile(module, target=tvm.target.Target(cpu()))
    executable.export_library(str(source.parent / f"{'tuned' if tuned else 'untuned'}.so"))


def cpu():
    """This machine as a target of TVM."""
    from tvm.target import codegen

    return {"kind": "llvm", "mcpu": codegen.llvm_get_system_cpu(), "num-cores": 1}


def fused(source):
    """The network after TVM's pipeline of legalisation and fusion."""
    from tvm.relax.frontend.onnx import from_onnx

    return relax.get_pipeline("zero")(from_onnx(onnx.load(source), keep_params_in_input=False))


def tune(source, folder):
    """Tunes every distinct operator of a network; the records stay in the folder."""
    from tvm.s_tir import meta_schedule as ms

    _fast_intrinsics()
    folder.mkdir(parents=True, exist_ok=True)
    module, target = fused(source), tvm.target.Target(cpu())
    tasks = ms.relax_integration.extract_tasks(module, target, params={})
    print(len(tasks), "tasks", flush=True)
    ms.relax_integration.tune_relax(
        module,
        params={},
        target=target,
        work_dir=str(folder),
        max_trials_global=TRIALS * len(tasks),
        max_trials_per_task=TRIALS,
        num_trials_per_iter=TRIALS,
        builder=ms.builder.LocalBuilder(max_workers=os.cpu_count(), timeout_sec=60, f_build=_build),
    )
    (folder / "done").touch()


def _build(module, target, _params):
    """TVM's default imports twenty seconds of GPU intrinsics in every worker."""
    import tvm
    from tvm.s_tir.transform import RemoveWeightLayoutRewriteBlock

    return tvm.tirx.build(RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(module), target=target)


def _fast_intrinsics():
    """Lets MetaSchedule import this processor's intrinsics only: those of GPUs take twenty seconds to parse."""
    import tvm.s_tir

    name = "tvm.s_tir.tensor_intrin"
    if name not in sys.modules:
        package = types.ModuleType(name)
        package.__path__ = [
            str(Path(importlib.util.find_spec("tvm.s_tir").submodule_search_locations[0]) / "tensor_intrin")
        ]
        sys.modules[name] = tvm.s_tir.tensor_intrin = package
    importlib.import_module(f"{name}.{'x86' if os.uname().machine == 'x86_64' else 'arm_cpu'}")


if __name__ == "__main__":
    tune(Path(sys.argv[1]), Path(sys.argv[2]))
    # MetaSchedule's pools leave threads behind that never end.
    os._exit(0)
