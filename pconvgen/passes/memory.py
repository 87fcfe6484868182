"""The memory of activations: one arena, whose layout is planned when the model is compiled.

before: a = builtin.alloc_tensor([1, 64, 56, 56]); conv(x, a); b = builtin.alloc_tensor([1, 64, 28, 28]); pool(a, b)
after:  arena = memory.alloc_storage([1003520])
        a = memory.alloc_tensor(arena, 0, [1, 64, 56, 56]); conv(x, a)
        b = ensure_zero_offset(memory.alloc_tensor(arena, 802816, [1, 64, 28, 28])); pool(a, b)
"""

from __future__ import annotations

import json
from dataclasses import asdict

from pconvgen.arena import ActivationMemory, Lifetime, largest_live_set, pack
from pconvgen.tvm_compat.allocations import (
    HUGE_PAGE,
    allocated_bytes,
    in_arena,
    is_kernel_call,
    is_view,
    result_variables,
    straight_bindings,
)
from pconvgen.tvm_compat.passes import module_pass
from pconvgen.tvm_compat.relax import Module, Var, variables_of
from pconvgen.values.target import Target

MEMORY = "pconvgen.memory"
"""Module attribute: JSON of the ActivationMemory."""

LARGE = 2 * HUGE_PAGE
"""Bytes of an arena that huge pages are worth asking for."""


@module_pass
class PlanMemory:
    """Relax pass that places the tensors which "main" allocates for its kernels in one arena.

    It wants calls of kernels with their outputs as arguments (`call_kernels`). What "main" returns stays a tensor of
    its own, since the caller keeps it, and so does what anything but a kernel reads, or what has a dynamic shape: TVM's
    own planner takes care of it. The sizes are left in the module's attribute MEMORY.

    Parameters
    ----------
    target: what code is generated for; with 64-bit addresses a large arena asks for huge pages.
    """

    def __init__(self, target: Target) -> None:
        self.target = target

    def transform_module(self, module: Module, _context: object) -> Module:
        """A new module; the same one when nothing can be planned."""
        tensors = lifetimes(module)
        if not tensors:
            return module
        arena = pack(list(tensors.values()))
        offsets = dict(zip(tensors, arena.offsets, strict=True))
        large = arena.nbytes >= LARGE and not self.target.triple.startswith("armv7")
        planned = in_arena(module, offsets, arena.nbytes, huge_pages=large)
        memory = ActivationMemory(arena.nbytes, largest_live_set(list(tensors.values())))
        return planned.with_attr(MEMORY, json.dumps(asdict(memory)))


def memory_of(module: Module) -> ActivationMemory | None:
    """What PlanMemory found out about a module; None when it planned nothing."""
    attrs = module.attrs or {}
    return ActivationMemory(**json.loads(attrs[MEMORY])) if MEMORY in attrs else None


def lifetimes(module: Module) -> dict[Var, Lifetime]:
    """The lifetime of each tensor that only kernels read and write, by the variable of its allocation.

    A tensor is needed from the first to the last call of a kernel that takes it, or a view of it, as an argument; in
    other words, a kernel's outputs never lie where its inputs do, unless they are the same tensor.
    """
    sizes: dict[Var, int] = {}
    calls: dict[Var, list[int]] = {}
    # The tensors in whose memory the value of a variable lies; a field of a tuple counts as all of the tuple.
    homes: dict[Var, set[Var]] = {}
    escaped: set[Var] = set()

    for step, binding in enumerate(straight_bindings(module)):
        var, value = binding.var, binding.value
        touched = {home for used in variables_of(value) for home in homes.get(used, ())}
        nbytes = allocated_bytes(value)
        if nbytes is not None:
            sizes[var], homes[var] = nbytes, {var}
        elif is_kernel_call(module, value):
            for home in touched:
                calls.setdefault(home, []).append(step)
        elif is_view(value):
            homes[var] = touched
        else:
            escaped |= touched
    for var in result_variables(module):
        escaped |= homes.get(var, set())
    return {var: Lifetime(sizes[var], steps[0], steps[-1]) for var, steps in calls.items() if var not in escaped}
