"""pconvgen targets: what a model can be compiled for."""

from __future__ import annotations


def command() -> None:
    """List the targets, and whether this machine has a linker for them."""
    from pconvgen.errors import UsageError
    from pconvgen.report.console import output
    from pconvgen.report.tables import target_table
    from pconvgen.targets.linker import find_linkers
    from pconvgen.targets.presets import TARGETS, get_target

    found, unusable = [], []
    for name in TARGETS:
        try:
            found.append(get_target(name))
        except UsageError as error:  # a machine without kernels is no host, and still compiles for others
            unusable.append(f"{name}: {error}")
    out = output()
    out.print(target_table((target, [linker.name for linker in find_linkers(target.platform)]) for target in found))
    for line in unusable:
        out.print(line)
