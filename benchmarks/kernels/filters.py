"""Which layers, structures and densities a run of the kernel benchmark measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.command import matches
from benchmarks.layers import DENSITIES, GROUPS, PRUNINGS, Layer, Pruning, layers
from pconvgen.errors import UsageError

Case = tuple[Layer, Pruning, float]


@dataclass(frozen=True)
class Filters:
    """Shell patterns of layers and of structures, and densities; None for all."""

    layers: Sequence[str] | None = None
    structures: Sequence[str] | None = None
    densities: Sequence[float] | None = None

    def cases(self) -> list[Case]:
        """What passes.

        Raises
        ------
        UsageError: nothing does.
        """
        chosen = [layer for layer in layers() if matches((layer.group, layer.name), self.layers)]
        prunings = [pruning for pruning in PRUNINGS if matches((pruning.name, pruning.structure), self.structures)]
        found = [
            (layer, pruning, density)
            for layer in chosen
            for pruning in prunings
            for density in self.densities or DENSITIES
            if pruning.suits(layer, density)
        ]
        if not found:
            raise UsageError(
                "nothing passes the filters",
                found=" ".join(map(str, [*(self.layers or ()), *(self.structures or ()), *(self.densities or ())])),
                expected=f"layers of {', '.join(GROUPS)}; structures {', '.join(p.name for p in PRUNINGS)}",
                remedy="only dense has density 1, and it has no other",
            )
        return found


def text(case: Case) -> str:
    """As progress shows a case."""
    layer, pruning, density = case
    return f"{layer.group} {layer.name} {pruning.name} {density:g}"
