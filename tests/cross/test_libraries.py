"""Libraries of each ARM platform and linker: they ask for exactly what they use, and load where pages are large."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from elf import needs_readelf, read_elf
from small import SHAPE, small
from torch import nn

import pconvgen
from pconvgen.targets.linker import PAGE_BYTES, find_linkers, library_linker
from pconvgen.targets.presets import get_target
from pconvgen.tvm_compat.building import export_library

pytestmark = [pytest.mark.cross, needs_readelf]

LIBM = {
    "cortex-a76": "libm.so.6",
    "android-arm64": "libm.so",
    "android-arm64-fp16": "libm.so",
    "cortex-a7": "libm.so.6",
    "android-armv7a": "libm.so",
}
UNWINDING = {"cortex-a7": {"__aeabi_unwind_cpp_pr0"}, "android-armv7a": {"__aeabi_unwind_cpp_pr0"}}
"""What 32-bit ARM's unwind tables name, and no relocation refers to."""


class Sine(nn.Module):
    """Calls the C library's sine, which no kernel of ours computes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.sin(self.conv(image))


@pytest.mark.parametrize("name", LIBM)
@pytest.mark.parametrize("needs_libm", [False, True])
def test_a_library_asks_for_what_it_uses(needs_libm: bool, name: str, tmp_path: Path) -> None:
    model = Sine().eval() if needs_libm else small()
    target = get_target(name)
    compiled = pconvgen.compile(pconvgen.load_model(model, example=(torch.zeros(SHAPE),)), name)
    linkers = find_linkers(target.platform)
    assert linkers, "ziglang is a requirement of the tests"
    for linker in linkers:
        path = tmp_path / "model.so"
        export_library(compiled._executable, str(path), library_linker(target, linker))
        elf = read_elf(path)
        assert elf.needed == ({LIBM[name]} if needs_libm else set()), linker.name
        assert elf.undefined == ({"sinf"} if needs_libm else set()) | UNWINDING.get(name, set()), linker.name
        assert elf.alignments == {PAGE_BYTES}, linker.name
        assert elf.hashes == {"HASH", "GNU_HASH"}, linker.name
        assert not elf.text_relocations, linker.name
