"""What latency is learned from: networks of the benchmark, pruned in some ways, and layers of any size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pconvgen
from benchmarks.latency.drawn_layers import DrawnLayers
from benchmarks.models.cases import VGG_LAYERS, Variant, case_of
from pconvgen.frontend import Imported

SHIPPED = 1.0
"""Minutes of tuning from which on the records of a network come with pconvgen."""
LAYERS = 50
"""Of any size, in each of the models of such layers."""


@dataclass(frozen=True)
class Pruned:
    """A network of the benchmark, pruned in one way; "dense" for as it is.

    Attributes
    ----------
    network: of `CASES`.
    structure, density: see `Variant`.
    minutes: of tuning, after the schedules that are drawn.
    """

    network: str
    structure: str
    density: float
    minutes: float = 0.0

    @property
    def name(self) -> str:
        """Such as resnet50-pattern-25."""
        kept = "" if self.structure == "dense" else f"-{round(100 * self.density)}"
        return f"{self.network}-{self.structure}{kept}"

    @property
    def shipped(self) -> bool:
        """Whether its records come with pconvgen."""
        return self.minutes >= SHIPPED

    def load(self) -> Imported:
        """The network with its name."""
        case = case_of(self.network)
        layers = VGG_LAYERS if self.network.startswith("vgg") else ()
        dense = self.structure == "dense"
        model = case.build() if dense else case.pruned(Variant(self.structure, self.density, layers))
        return replace(pconvgen.load_model(model, example=(case.image(),)), source=self.name)


@dataclass(frozen=True)
class Drawn:
    """Layers of any size.

    Attributes
    ----------
    seed: of what is drawn.
    minutes: of tuning.
    """

    seed: int
    minutes: float = 0.0

    @property
    def name(self) -> str:
        """Such as layers-0."""
        return f"layers-{self.seed}"

    @property
    def shipped(self) -> bool:
        """Whether its records come with pconvgen."""
        return False

    def load(self) -> Imported:
        """The layers as a model."""
        model = DrawnLayers(LAYERS, self.seed).eval()
        return replace(pconvgen.load_model(model, example=tuple(model.inputs)), source=self.name)


NETWORKS: tuple[Pruned | Drawn, ...] = (
    Pruned("resnet50", "pattern", 0.25, 2),
    Pruned("resnet50", "simd_block", 0.25, 2),
    Pruned("vgg16_bn", "simd_block", 0.125, 2),
    Pruned("vgg16_bn", "pattern", 0.125, 2),
    Pruned("mobilenet_v2", "simd_block", 0.4, 1),
    Pruned("mobilenet_v1", "simd_block", 0.4, 1),
    Pruned("efficientnet_b0", "simd_block", 0.4, 1),
    Pruned("yolo", "simd_block", 0.25, 1),
    Pruned("unet", "simd_block", 0.25, 1),
    Pruned("resnet50", "dense", 1.0, 0.5),
    Pruned("mobilenet_v1", "dense", 1.0, 0.5),
    Pruned("resnet50", "unstructured", 0.25, 0.5),
    Pruned("resnet50", "block_punched", 0.25),
    Pruned("resnet50", "simd_block", 0.5),
    Pruned("resnet50", "pattern", 0.125),
    Pruned("vgg16_bn", "simd_block", 0.5),
    Pruned("mobilenet_v2", "simd_block", 0.2),
    Pruned("unet", "pattern", 0.25),
    Drawn(0),
    Drawn(1),
    Drawn(2),
)
"""What is learned from."""
