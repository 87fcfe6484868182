"""The targets that have names."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import replace

from pconvgen.errors import UsageError
from pconvgen.schedules.cores import CORES, core_of_cpu
from pconvgen.schedules.neon import NEON
from pconvgen.targets.host import host_target
from pconvgen.values.core import Core
from pconvgen.values.target import Platform, Target

TRIPLES: dict[Platform, str] = {
    "linux-arm64": "aarch64-linux-gnu",
    "android-arm64": "aarch64-linux-android",
    "linux-arm32": "armv7a-linux-gnueabihf",
    "android-arm32": "armv7a-linux-androideabi",
}

# LLVM avoids the fused multiply-add of these cores because it is slow in chains, which ours are not part of. Its
# default scheduler ignores registers: a dense 3x3 kernel is 656 instructions with 64 spills, and 179 with none by the
# other one.
_ARMV7A_FEATURES = ("-slowfpvfmx", "-vmlx-hazards", "+use-misched")


def _arm(
    name: str,
    cpu: str,
    platform: Platform = "linux-arm64",
    features: tuple[str, ...] = (),
    core: Core | None = None,
) -> Target:
    return Target(name, core or core_of_cpu(NEON, cpu), TRIPLES[platform], cpu, features, platform)


def _armv7a(name: str, core: Core, platform: Platform = "linux-arm32") -> Target:
    # Cortex-A15 has the same instructions, but LLVM's model of it loads further ahead than registers last.
    return Target(name, core, TRIPLES[platform], "cortex-a7", _ARMV7A_FEATURES, platform)


# The small cores' caches, so that blocks fit wherever a thread lands.
_PHONE = replace(CORES["neon"], l1_kib=32, l2_kib=128)

_PRESETS = (
    _arm("cortex-a53", "cortex-a53"),
    _arm("cortex-a55", "cortex-a55"),
    _arm("cortex-a72", "cortex-a72"),
    _arm("cortex-a76", "cortex-a76"),
    _arm("cortex-a78", "cortex-a78"),
    _arm("cortex-x1", "cortex-x1"),
    _arm("neoverse-n1", "neoverse-n1"),
    _arm("raspberry-pi-4", "cortex-a72"),
    _arm("raspberry-pi-5", "cortex-a76"),
    # The baseline of every 64-bit phone.
    _arm("android-arm64", "generic", "android-arm64", core=_PHONE),
    # Phones since 2018 (Cortex-A55 and A75), which compute in half precision; older ones stop at such an instruction.
    _arm("android-arm64-fp16", "generic", "android-arm64", ("+v8.2a", "+fullfp16"), _PHONE),
    _armv7a("cortex-a7", CORES["cortex-a7"]),
    _armv7a("cortex-a15", CORES["cortex-a15"]),
    # 32-bit phones and 32-bit apps on newer ones. Cortex-A8 and A9, of 2012 and before, lack fused multiply-add.
    _armv7a("android-armv7a", replace(CORES["armv7a"], l2_kib=256), "android-arm32"),
)


class _Targets(Mapping[str, Target]):
    """The presets by name, and "host", which is looked up when asked for: asking LLVM takes an import of TVM."""

    def __init__(self, presets: tuple[Target, ...]) -> None:
        self._presets = {preset.name: preset for preset in presets}

    def __getitem__(self, name: str) -> Target:
        return host_target() if name == "host" else self._presets[name]

    def __contains__(self, name: object) -> bool:
        return name == "host" or name in self._presets

    def __iter__(self) -> Iterator[str]:
        yield "host"
        yield from self._presets

    def __len__(self) -> int:
        return 1 + len(self._presets)


TARGETS: Mapping[str, Target] = _Targets(_PRESETS)


def get_target(name: str) -> Target:
    """The target of that name.

    Raises
    ------
    UsageError: there is none, or the host has no ISA that kernels exist for.
    """
    if name in TARGETS:
        return TARGETS[name]
    nearest = difflib.get_close_matches(name.lower(), list(TARGETS), n=1, cutoff=0.5)
    raise UsageError(
        "unknown target",
        found=name,
        expected=f"one of {', '.join(TARGETS)}",
        remedy=f"did you mean {nearest[0]}?" if nearest else None,
    )
