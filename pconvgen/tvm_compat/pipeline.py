"""How kernels get from TIR to LLVM: TVM's default pipeline without what there is for GPUs only.

Such passes take much of the time of compiling a network. What is left out changes nothing in the libraries.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.s_tir.pipeline import finalize_device_passes, finalize_host_passes

from pconvgen.tvm_compat.denormals import FlushDenormals
from pconvgen.tvm_compat.extrema import HandOnNan
from pconvgen.tvm_compat.passes import module_pass
from pconvgen.tvm_compat.relax import Module
from pconvgen.tvm_compat.tir import FLAT

CPU_PIPELINE = "pconvgen"


def _cpu_pipeline() -> Any:
    # Half of the passes find nothing to do in flat kernels and take much of the time: conditions to hoist, divisions,
    # bfloat16, loops to partition or unroll, what has no effect, and buffers that could be smaller, one for each
    # register, by the square of their number. Common subexpressions are found by LLVM: the code is as long without.
    of_flat = [
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.StmtSimplify(),
        s_tir.transform.LowerOpaqueBlock(),
        tirx.transform.FlattenBuffer(),
        tirx.transform.NarrowDataType(32),
        tirx.transform.VectorizeLoop(True),
        tirx.transform.StmtSimplify(),
    ]
    of_blocks = [
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.StmtSimplify(),
        s_tir.transform.LowerOpaqueBlock(),
        tirx.transform.FlattenBuffer(),
        tirx.transform.BF16ComputeLegalize(),
        tirx.transform.NarrowDataType(32),
        s_tir.transform.LoopPartition(),
        tirx.transform.VectorizeLoop(True),
        s_tir.transform.HoistIfThenElse(),
        tirx.transform.UnrollLoop(),
        s_tir.transform.RenormalizeSplitPattern(),
        tirx.transform.StmtSimplify(),
        tirx.transform.RemoveNoOp(),
        s_tir.transform.RewriteUnsafeSelect(),
        tirx.transform.CommonSubexprElim(),
    ]
    finish = [
        # Behind all that simplifies, which would change the order of operands.
        HandOnNan(),
        tirx.transform.VerifyMemory(),
        tirx.transform.AnnotateEntryFunc(),
        tirx.transform.SplitHostDevice(),
        tirx.transform.MakePackedAPI(),
        tirx.transform.BF16StorageLegalize(),
    ]

    @module_pass
    def lower(module: Module, _: object) -> Module:
        flat = {var: function for var, function in module.functions.items() if function.attrs.get(FLAT)}
        rest = {var: function for var, function in module.functions.items() if var not in flat}
        lowered = tvm.IRModule({}, attrs=module.attrs)
        for functions, passes in ((flat, of_flat), (rest, of_blocks)):
            lowered.update(tvm.transform.Sequential(passes)(tvm.IRModule(functions)))
        return tvm.transform.Sequential(finish)(lowered)

    # Behind the passes that lower calls and allocations, each of which may fail.
    def finish_host() -> Any:
        return tvm.transform.Sequential([finalize_host_passes(), FlushDenormals()])

    return lower, finish_host, finalize_device_passes


tirx.register_tir_pipeline(CPU_PIPELINE, _cpu_pipeline)
