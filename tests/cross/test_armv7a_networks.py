"""Whole networks as libraries for 32-bit ARM: linked and looked at, not run, because TVM has no runtime for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from elf import needs_readelf, read_elf
from torch import nn

import pconvgen
from pconvgen.compiler import BuiltModel
from pconvgen.devices import get_device
from pconvgen.elf import machine_of
from pconvgen.errors import PconvgenError
from pconvgen.manifest import read_manifest
from pconvgen.targets.linker import LIBC, LIBM, PAGE_BYTES, PROVIDED_PREFIXES, find_linkers, library_linker
from pconvgen.targets.presets import get_target
from pconvgen.tvm_compat.building import export_library
from tests.networks import imported

pytestmark = pytest.mark.cross

LIBRARIES = {"cortex-a7": ("libm.so.6", "libc.so.6"), "android-armv7a": ("libm.so", "libc.so")}
HARD_FLOAT = 0x400


class Logarithm(nn.Module):
    """A function that neither pconvgen nor the processor computes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(x.abs() + 1)


@needs_readelf
@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v2"])
def test_library_needs_only_what_devices_have(network: str, name: str, tmp_path: Path) -> None:
    check_libraries(pconvgen.compile(imported(network, "pattern"), name), name, tmp_path)


@needs_readelf
@pytest.mark.parametrize("name", LIBRARIES)
def test_library_asks_for_the_libraries_of_what_it_calls(name: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Logarithm()).eval()
    used = check_libraries(pconvgen.compile(model, name, example=(torch.zeros(1, 3, 8, 8),)), name, tmp_path)
    assert used & LIBM


def check_libraries(compiled: BuiltModel, name: str, tmp_path: Path) -> set[str]:
    """What the library that each linker makes asks for; the functions of the C library that they call."""
    target, used = get_target(name), set[str]()
    linkers = find_linkers(target.platform)
    assert linkers, "ziglang is a requirement of the tests"
    for linker in linkers:
        path = tmp_path / "model.so"
        export_library(compiled._executable, str(path), library_linker(target, linker))
        assert machine_of(path) == "armv7l"
        assert read_manifest(path).target == name
        used |= check_needs(path, name)
    return used


def check_needs(path: Path, name: str) -> set[str]:
    elf = read_elf(path)
    used = {symbol for symbol in elf.undefined if not symbol.startswith(PROVIDED_PREFIXES)}
    assert elf.undefined, "functions of TVM's runtime at least"
    assert used <= LIBM | LIBC
    libm, libc = LIBRARIES[name]
    assert elf.needed == {library for library, of in ((libm, LIBM), (libc, LIBC)) if used & of}
    assert elf.alignments == {PAGE_BYTES}
    assert not elf.text_relocations
    assert not re.search(r" R_ARM_\w+ .*__aeabi_unwind", elf.printed), "nobody provides what only unwind tables name"
    flags = re.search(r"Flags:\s+(0x[0-9a-f]+)", elf.printed)
    assert flags
    assert bool(int(flags.group(1), 16) & HARD_FLOAT) == (name == "cortex-a7"), "loaders check how floats are passed"
    return used


def test_running_one_is_refused(tmp_path: Path) -> None:
    compiled = pconvgen.compile(imported("resnet18", None), "cortex-a7")
    model = compiled.manifest.model(compiled.export(tmp_path / "model.so"))
    for device in ("local", "emulated"):
        with pytest.raises(PconvgenError, match=r"another processor \(found armv7l"):
            get_device(device).run(model, compiled.manifest.random_inputs(0))
