"""What the LLVM inside TVM knows of processors, and targets as TVM names them."""

from __future__ import annotations

import difflib

import tvm
from tvm.target import codegen

from pconvgen.errors import UsageError
from pconvgen.values.target import Target


def llvm_target(target: Target) -> tvm.target.Target:
    """The TVM target that generates code for `target`.

    Raises
    ------
    UsageError: LLVM does not know the processor. (Left to itself it would compile for a generic one.)
    """
    if not codegen.llvm_is_valid_cpu(target.cpu, target.triple):
        known = tvm.target.Target({"kind": "llvm", "mtriple": target.triple})
        nearest = difflib.get_close_matches(target.cpu, [str(cpu) for cpu in codegen.llvm_get_cpu_archlist(known)], n=1)
        raise UsageError(
            f"target {target.name}: LLVM does not know the processor",
            found=f"{target.cpu} for {target.triple}",
            expected=nearest[0] if nearest else "a name that clang -mcpu= takes",
        )
    options: dict[str, object] = {"kind": "llvm", "mtriple": target.triple, "mcpu": target.cpu}
    if target.features:
        options["mattr"] = list(target.features)
    if target.triple.endswith("eabihf"):
        # TVM passes floats in integer registers otherwise, whatever the triple says. Android does so too.
        options["mfloat-abi"] = "hard"
    return tvm.target.Target(options)


def has_feature(target: Target, feature: str) -> bool:
    """Whether LLVM generates instructions of a feature, e.g. "fullfp16", for the processor of `target`.

    Raises UsageError when LLVM does not know the processor.
    """
    return bool(codegen.llvm_cpu_has_features(feature, llvm_target(target)))


def host_cpu() -> str:
    """LLVM's name of this machine's processor, e.g. "znver4"."""
    return str(codegen.llvm_get_system_cpu())


def host_triple() -> str:
    """LLVM's name of this machine, e.g. "x86_64-unknown-linux-gnu"."""
    return str(codegen.llvm_get_system_triple())


def llvm_version() -> int:
    """The major version of LLVM."""
    return int(codegen.llvm_version_major())


def back_ends() -> frozenset[str]:
    """The instruction sets that this LLVM generates code for, e.g. "aarch64" and "arm"."""
    return frozenset(str(name) for name in codegen.llvm_get_targets())
