"""One spelling for what front ends spell in several ways, so that later passes match one form."""

from __future__ import annotations

from typing import Any

import tvm

from pconvgen.tvm_compat import Emit, is_op, rewrite_main


@tvm.transform.module_pass(opt_level=0, name="CanonicalizeActivations")
class CanonicalizeActivations:
    """SiLU is one operator.

    before: s = sigmoid(x); y = multiply(x, s)
    after:  y = nn.silu(x)
    """

    def transform_module(self, module: Any, _context: Any) -> Any:
        """A new module; a sigmoid that is not used any more is dropped."""
        values: dict[Any, Any] = {}

        def rule(var: Any, value: Any, _emit: Emit) -> Any:
            values[var] = value
            if is_op(value, "relax.multiply"):
                for data, gate in (tuple(value.args), tuple(value.args)[::-1]):
                    sigmoid = values.get(gate)
                    if is_op(sigmoid, "relax.sigmoid") and sigmoid.args[0].same_as(data):
                        return tvm.relax.op.nn.silu(data)
            return value

        return tvm.relax.transform.DeadCodeElimination()(rewrite_main(module, rule))
