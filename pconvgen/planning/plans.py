"""The plans of a network's layers, once the layouts of its tensors are chosen."""

from __future__ import annotations

from typing import Any

from pconvgen.planning.choose import Layer, LayerPlan, Planner
from pconvgen.planning.convolution import Convolution
from pconvgen.planning.network import Network
from pconvgen.planning.operations import Operation
from pconvgen.planning.tensors import Home
from pconvgen.tvm_compat.relax import Var
from pconvgen.values.decision import Decision
from pconvgen.values.planes import Places, PlaneLayout
from pconvgen.watch import step


class NetworkPlans:
    """Plans layers, in layouts that were chosen.

    Attributes
    ----------
    network: the layers and layouts.
    planner: what chooses encodings and schedules.
    decisions: of the layers that were planned so far, by their variables.
    """

    def __init__(self, network: Network, planner: Planner) -> None:
        self.network = network
        self.planner = planner
        self.decisions: dict[Var, Decision] = {}
        self._order = {var: number for number, var in enumerate(network.operations)}

    def decide(self, var: Var) -> None:
        """Plans the layer whose result is a variable, if one is."""
        network = self.network
        if var in network.products:
            self.plan_product(network.products[var])
        elif isinstance(operation := network.operations.get(var), Convolution):
            self.plan_convolution(operation)

    def plan_product(self, layer: Layer) -> LayerPlan:
        """The plan of a product of matrices."""
        plan = self.plan(layer)
        self.decisions[layer.fused_op.var] = plan.decision
        return plan

    def plan_convolution(self, operation: Convolution) -> tuple[LayerPlan, PlaneLayout]:
        """The plan of a convolution, and the layout that its kernel reads."""
        source = self.source(operation)
        assert source is not None
        plan = operation.plan(source, self)
        self.decisions[operation.layer.fused_op.var] = plan.decision
        return plan, source

    def source(self, operation: Operation) -> PlaneLayout | None:
        """The layout that an operation reads its first input in."""
        packed = self.network.chosen.packed.get(self._order[operation.result])
        home = operation.reads[0]
        return packed if packed is not None or home is None else self.layout(home)

    def plan(self, layer: Layer, places: Places | None = None, **where: Any) -> LayerPlan:
        """The encoding and schedule of a layer; see `plan_layer`."""
        step(layer.name)
        return self.planner(layer, self.network.target, places, **where)

    def layout(self, home: Home) -> PlaneLayout:
        """The layout of the buffer that a tensor lives in."""
        return self.network.chosen.buffers[home.buffer]
