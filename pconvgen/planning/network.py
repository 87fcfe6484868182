"""What generated kernels compute in a module, and where its tensors live: all that lowering has to know of it."""

from __future__ import annotations

from collections.abc import Sequence

from pconvgen.matching.norms import find_norms
from pconvgen.matching.pointwise import find_pointwise
from pconvgen.matching.pools import pool_of
from pconvgen.matching.users import Users
from pconvgen.planning.choose import Layer
from pconvgen.planning.convolution import Convolution
from pconvgen.planning.layout import NetworkLayouts, choose_layouts
from pconvgen.planning.operations import Elementwise, Normalisation, Operation, Pooling
from pconvgen.planning.tensors import BufferViews, Home
from pconvgen.tvm_compat.relax import Expr, Module, Var, variables_of
from pconvgen.values.precision import Precision
from pconvgen.values.target import Target


class Network:
    """What generated kernels compute in a module, and where its tensors live.

    Attributes
    ----------
    products: layers that are products of matrices, by the variable of their result.
    operations: everything else, by the same.
    absorbed: variables that vanish in a layer.
    tensors: homes of the tensors.
    chosen: their layouts.
    lanes: of a vector where tensors are only moved.
    """

    def __init__(self, module: Module, layers: Sequence[Layer], target: Target, precision: Precision) -> None:
        self.target, self.precision = target, precision
        self.lanes = target.core.lanes(precision.arithmetic)
        self.users = Users(module)
        self.products = {layer.fused_op.result: layer for layer in layers if layer.is_product}
        convolutions = {layer.fused_op.result: layer for layer in layers if not layer.is_product}
        self.absorbed = {var for layer in layers for var in layer.fused_op.absorbed}
        pools = {binding.var: pool for binding in self.users.bindings if (pool := pool_of(binding.value)) is not None}
        claimed = {layer.fused_op.result for layer in layers} | self.absorbed | set(pools)
        norms = {norm.result: norm for norm in find_norms(self.users, claimed)}
        chains = {chain.result: chain for chain in find_pointwise(self.users, claimed)}
        self.absorbed |= {var for norm in norms.values() for var in norm.absorbed}
        self.absorbed |= {var for chain in chains.values() for var in chain.absorbed}
        made = {*convolutions, *norms, *chains, *(var for var, pool in pools.items() if not pool.whole)}
        self.tensors = BufferViews(self.users, made)
        self.operations: dict[Var, Operation] = {}
        for binding in self.users.bindings:
            var = binding.var
            if var in convolutions:
                fused_op = convolutions[var].fused_op
                formats = fused_op.workload.precision
                data = self._home(fused_op.data) if formats.activations == formats.arithmetic else None
                reads = (data,) if fused_op.residual is None else (data, self._home(fused_op.residual, contiguous=True))
                self.operations[var] = Convolution(convolutions[var], target, reads, self.tensors[var])
            elif var in norms:
                reads = (self._home(norms[var].data, contiguous=True),)
                self.operations[var] = Normalisation(norms[var], target, reads, self.tensors[var], precision)
            elif var in chains:
                chain = chains[var]
                added = () if chain.other is None else (self._home(chain.other, contiguous=True),)
                reads = (self._home(chain.data, contiguous=True), *added)
                self.operations[var] = Elementwise(chain, target, reads, self.tensors[var], precision)
            elif var in pools:
                reads = (self._home(pools[var].data, contiguous=True),)
                writes = None if pools[var].whole else self.tensors[var]
                self.operations[var] = Pooling(pools[var], var, target, reads, writes, precision)
        self.chosen = self._layouts()

    def _home(self, data: Expr, *, contiguous: bool = False) -> Home | None:
        home = self.tensors.get(data)
        return None if home is None or (contiguous and home.first is None) else home

    def _layouts(self) -> NetworkLayouts:
        fallback = {self.tensors[var].buffer for var in self._read_by_others()}
        return choose_layouts(list(self.operations.values()), fallback, self.target.core, self.precision.arithmetic)

    def _read_by_others(self) -> list[Var]:
        """Tensors with a home that something else than a generated kernel reads, as NCHW."""
        found = [result for result in self.users.results if result in self.tensors]
        for binding in self.users.bindings:
            var = binding.var
            if var in self.absorbed or self.tensors.is_view(var):
                continue
            operation = self.operations.get(var)
            for read in variables_of(binding.value):
                if read in self.tensors and (operation is None or None in operation.reads):
                    found.append(read)
        return found
