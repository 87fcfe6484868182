"""What a pruner tells of each of its steps, and who may listen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StepLog:
    """One step of a pruner.

    Attributes
    ----------
    epoch: as it was told.
    densities: layer -> share of its weights that pruning now would keep.
    distance: layer -> how far its weight is from being pruned, relative to its norm: what pruning now would cut off.
    cost, budget: of the network pruned now, and what it may cost, in `unit`; None where the budget is a density.
    unit: of costs.
    details: numbers of the kind of pruner, such as ADMM's rho.
    """

    epoch: int
    densities: dict[str, float]
    distance: dict[str, float]
    cost: float | None
    budget: float | None
    unit: str
    details: dict[str, float]

    def scalars(self) -> dict[str, float]:
        """All numbers by a path, as TensorBoard takes them."""
        found = {f"pruning/{name}": value for name, value in self.details.items()}
        if self.cost is not None and self.budget is not None:
            found |= {"pruning/cost": self.cost, "pruning/budget": self.budget}
        found |= {f"pruning/density/{name}": value for name, value in self.densities.items()}
        return found | {f"pruning/distance/{name}": value for name, value in self.distance.items()}

    def __str__(self) -> str:
        parts = [f"epoch {self.epoch}", *(f"{name} {value:.3g}" for name, value in self.details.items())]
        if self.distance:
            parts.append(f"to be cut off {max(self.distance.values()):.1%} at most")
        if self.cost is not None:
            parts.append(f"{self.cost:.4g} of {self.budget:.4g} {self.unit}")
        return ", ".join(parts)


Callback = Callable[[StepLog], None]


def progress_line(log: StepLog) -> None:
    """A callback that prints a line for each step."""
    from pconvgen.report.console import output

    output().print(str(log))


def tensorboard(writer: Any) -> Callback:
    """A callback that writes scalars.

    Parameters
    ----------
    writer: a torch.utils.tensorboard.SummaryWriter, or whatever has its add_scalar(path, value, step).
    """

    def write(log: StepLog) -> None:
        for path, value in log.scalars().items():
            writer.add_scalar(path, value, log.epoch)

    return write
