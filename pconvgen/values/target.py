"""A target: the processor that code is generated for and the linker that makes its shared library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pconvgen.values.core import Core

Platform = Literal["host", "linux-arm64", "android-arm64", "linux-arm32", "android-arm32"]


@dataclass(frozen=True)
class Target:
    """What code is generated for.

    Attributes
    ----------
    name: the preset's name.
    core: what its processor does with the instructions of its ISA, with the sizes of its caches.
    triple: LLVM target triple.
    cpu: LLVM processor name (checked: LLVM silently compiles unknown names as generic).
    features: LLVM features on top of the processor's own, e.g. ("+dotprod",).
    platform: which linker and system libraries the shared library is for.
    """

    name: str
    core: Core
    triple: str
    cpu: str
    features: tuple[str, ...] = ()
    platform: Platform = "host"

    @property
    def is_host(self) -> bool:
        """Whether its libraries run on this machine without an emulator."""
        return self.platform == "host"
