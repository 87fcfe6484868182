"""Libraries: constants are written as TVM would write them, kernels are compiled in parts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm_ffi
from tvm import relax
from tvm.relax import vm_build

from pconvgen.elf import undefined_symbols, write_data_object
from pconvgen.targets.linker import library_linker
from pconvgen.targets.presets import get_target
from pconvgen.tvm_compat import building as libraries
from pconvgen.tvm_compat.building import Executable, build, export_library
from pconvgen.tvm_compat.calls import KernelCalls
from pconvgen.tvm_compat.constants import LARGE, with_constants, without_constants
from pconvgen.tvm_compat.llvm import llvm_target
from pconvgen.tvm_compat.relax import constant
from pconvgen.tvm_compat.runtime import local_function
from pconvgen.tvm_compat.tir import T, prim_func

RNG = np.random.default_rng(0)
ARRAYS = [
    RNG.standard_normal((40, 3, 9, 9)).astype(np.float32),
    np.arange(5, dtype=np.int64),
    RNG.standard_normal((LARGE,)).astype(np.float16),
    RNG.integers(0, 99, (1, LARGE)).astype(np.int32),
    RNG.integers(0, 2, (LARGE, 2)).astype(bool),
    np.float32(7.5),
    RNG.integers(0, 255, (LARGE - 1,)).astype(np.uint8),
    RNG.integers(0, 255, (LARGE,)).astype(np.uint8),
    np.zeros((0, 4), np.float32),
]


def returning(arrays: list[Any]) -> Any:
    """A module whose "main" returns constants."""
    builder = relax.BlockBuilder()
    with builder.function("main", []):
        with builder.dataflow():
            result = builder.emit_output(relax.Tuple([constant(array) for array in arrays]))
        builder.emit_func_output(result)
    return builder.finalize()


def packed(module: Any) -> bytes:
    builder, target = relax.ExecBuilder(), llvm_target(get_target("host"))
    vm_build._vmcodegen(builder, libraries._to_calls(target)(module))
    linked = vm_build._ffi_api.VMLink(builder, target, None, [], {})
    return bytes(tvm_ffi.get_global_func("runtime.ModulePackImportsToTensor")(linked).numpy().tobytes())


def test_what_is_written_is_what_tvm_writes() -> None:
    arrays = [*ARRAYS, ARRAYS[0].copy(), ARRAYS[0] + 1]
    module, left_out = without_constants(returning(arrays))
    assert [array.nbytes >= LARGE for array in left_out] == [True] * 6, "equal ones once"
    short = packed(module)
    assert len(short) < 10_000
    assert b"".join(map(bytes, with_constants(short, left_out))) == packed(returning(arrays))
    assert b"".join(with_constants(short, ())) == short


def test_a_format_that_nobody_knows_is_refused() -> None:
    module, left_out = without_constants(returning(ARRAYS))
    with pytest.raises(ValueError, match="0 places for a constant"):
        list(with_constants(packed(module).replace(b"stand-in", b"ni-dnats"), left_out))


@pytest.mark.parametrize("target", ["host", "cortex-a53", "cortex-a7"])
def test_the_object_of_data(target: str, tmp_path: Path) -> None:
    code = build(returning(ARRAYS[:1]), llvm_target(get_target(target)), {}).objects[0]
    path = tmp_path / "data.o"
    with path.open("wb") as file:
        write_data_object(file, code, "weights", [b"abc", np.arange(3, dtype=np.uint8)])
    assert path.read_bytes()[18:20] == code[18:20], "the machine"
    user = tmp_path / "user.o"
    user.write_bytes(code)
    assert "weights" not in undefined_symbols([path, user])
    library_linker(get_target(target))(str(tmp_path / "m.so"), [str(user), str(path)])
    assert b"abc\0\1\2" in (tmp_path / "m.so").read_bytes()


@dataclass(frozen=True)
class Counting:
    """A kernel that writes one element more than it reads: the first, plus how many it reads."""

    length: int

    def build(self) -> Any:
        with prim_func("count", flat=True) as get:
            source = T.arg("source", T.buffer((self.length,), "float32"))
            out = T.arg("out", T.buffer((self.length + 1,), "float32"))
            total = T.sblock_alloc_buffer((1,), "float32", scope="local")
            T.buffer_store(total, source[0] + T.float32(self.length), [0])
            with T.serial(0, self.length + 1) as i:
                T.buffer_store(out, total[0], [i])
        return get()


def counting(count: int) -> Any:
    """A module whose "main" calls so many kernels, one after the other."""
    builder, calls = relax.BlockBuilder(), KernelCalls()
    x = relax.Var("x", relax.TensorType((1,), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            value = x
            for length in range(1, count + 1):
                value = builder.emit(calls.call(Counting(length), [value], (length + 1,)))
            result = builder.emit_output(value)
        builder.emit_func_output(result)
    return calls.add_to(builder.finalize())


@pytest.mark.parametrize("count", [1, libraries.PART, libraries.PART + 1, 5 * libraries.PART + 3])
def test_any_number_of_kernels_on_any_number_of_cores(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = get_target("host")
    for cores in (1, 3):
        monkeypatch.setattr(libraries, "usable_cores", lambda cores=cores: cores)
        executable = build(counting(count), llvm_target(target), {})
        assert len(executable.objects) == -(-count // libraries.PART)
        export_library(executable, str(tmp_path / f"{cores}.so"), library_linker(target))
    assert (tmp_path / "1.so").read_bytes() == (tmp_path / "3.so").read_bytes()
    (found,) = local_function(tmp_path / "1.so", "main")([np.ones(1, np.float32)])
    assert found.tolist() == [1 + sum(range(count + 1))] * (count + 1)


def test_an_error_in_one_part_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def compiling(kernels: Any, *_: Any) -> bytes:
        done.append(kernels)
        if len(done) == 2:
            raise RuntimeError("no such instruction")
        time.sleep(0.05)
        return b""

    monkeypatch.setattr(libraries, "_object", compiling)
    monkeypatch.setattr(libraries, "usable_cores", lambda: 1)
    with pytest.raises(RuntimeError, match="no such instruction"):
        build(counting(40 * libraries.PART), llvm_target(get_target("host")), {})
    assert len(done) < 40


def test_a_module_without_kernels_has_code_all_the_same() -> None:
    executable: Executable = build(returning(ARRAYS[:2]), llvm_target(get_target("host")), {"text": ARRAYS[1]})
    assert len(executable.objects) == 1
