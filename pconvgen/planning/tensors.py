"""Which tensors live in which buffer: concatenation, splitting and channel shuffle become places, not copies.

A tensor that a generated kernel makes has channels of its own in a buffer. Tensors that are concatenated share one, so
that each producer writes its part where the reader looks for it; a part or a permutation of channels is a list of
places in the same buffer:

    a = conv(x); b = conv(y)            a: channels 0..63 of buffer 0
    c = concat(a, b)             ->     b: channels 64..127 of buffer 0
    d, e = split(c)                     c: 0..127, d: 0..63, e: 64..127 of buffer 0: nothing is copied
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pconvgen.matching.users import Users
from pconvgen.tvm_compat.relax import Expr, Var, dtype_of, is_op, shape_of, split_indices, strided_slice_of, tuple_item
from pconvgen.values.dtype import DType


@dataclass(eq=False)
class Buffer:
    """Channels of images of one size that lie in one allocation.

    Attributes
    ----------
    batch, height, width: of the images.
    channels: of all tensors in it.
    """

    batch: int
    height: int
    width: int
    channels: int


@dataclass(frozen=True, eq=False)
class Home:
    """Where a tensor lives.

    Attributes
    ----------
    buffer: the allocation.
    slots: int64 [channels], the place of each of its channels.
    """

    buffer: Buffer
    slots: NDArray[np.int64]

    @property
    def first(self) -> int | None:
        """The first place, when the others follow one by one."""
        return int(self.slots[0]) if self.runs == 1 else None

    @property
    def runs(self) -> int:
        """Runs of places that follow one by one."""
        return 1 + int((np.diff(self.slots) != 1).sum())


class BufferViews:
    """The homes of the tensors that generated kernels make, and of what is only another view of them.

    Attributes
    ----------
    copied: (tensor, concatenation) pairs: a tensor of another operator that is copied to its place.
    """

    def __init__(self, users: Users, made: set[Var]) -> None:
        """`made` are the variables that generated kernels write, NCHW float32."""
        self._homes: dict[Hashable, Home] = {}
        self._views: dict[Var, Expr] = {}
        self.copied: dict[Var, list[tuple[Expr, Hashable]]] = {}
        self._users = users
        for binding in users.bindings:
            if binding.var in made:
                self._make(binding.var)
            else:
                self._view(binding.var, binding.value)

    def __contains__(self, var: Var) -> bool:
        return var in self._homes

    def get(self, var: Var) -> Home | None:
        """The home of a variable, None when it has none."""
        return self._homes.get(var)

    def __getitem__(self, var: Var) -> Home:
        return self._homes[var]

    def is_view(self, var: Var) -> bool:
        """Whether a variable, or a tuple of them, is only another view of what is there."""
        return var in self._views

    def _make(self, var: Var) -> Home:
        n, c, h, w = shape_of(var) or ()
        self._homes[var] = Home(Buffer(n, h, w, c), np.arange(c))
        return self._homes[var]

    def _view(self, var: Var, value: Expr) -> None:
        if is_op(value, "relax.concat"):
            self._concatenated(var, value)
        elif is_op(value, "relax.split") and value.args[0] in self._homes and int(value.attrs.axis) == 1:
            self._views[var] = value
        elif (item := tuple_item(value)) is not None and item[0] in self._views:
            split = self._views[item[0]]
            home, ends = self._homes[split.args[0]], split_indices(split)
            self._see(var, home, slice(ends[item[1]], ends[item[1] + 1]))
        elif (part := strided_slice_of(value)) is not None and part[0] in self._homes and part[1] == 1:
            self._see(var, self._homes[part[0]], slice(*part[2:]))
        elif is_op(value, "relax.reshape") and (shuffled := self._shuffled(value)) is not None:
            source, groups, between = shuffled
            self._views.update(dict.fromkeys(var for var in between if self._users.only(var) is not None))
            home = self._homes[source]
            self._see(var, home, np.arange(len(home.slots)).reshape(groups, -1).T.reshape(-1))

    def _see(self, var: Var, home: Home, channels: slice | NDArray[np.int64]) -> None:
        self._homes[var] = Home(home.buffer, home.slots[channels])
        self._views[var] = None

    def _shuffled(self, value: Expr) -> tuple[Var, int, tuple[Var, Var]] | None:
        """(tensor, groups, variables between) of reshape(permute_dims(reshape(tensor))) that interleaves groups."""
        permuted = self._users.value(value.args[0])
        if not is_op(permuted, "relax.permute_dims") or [int(a) for a in permuted.attrs.axes or ()] != [0, 2, 1, 3, 4]:
            return None
        grouped = self._users.value(permuted.args[0])
        if not is_op(grouped, "relax.reshape") or grouped.args[0] not in self._homes:
            return None
        before, between, after = (shape_of(e) for e in (grouped.args[0], permuted.args[0], value))
        if before is None or between is None or before != after:
            return None
        groups = between[1]
        if between != (before[0], groups, before[1] // groups, *before[2:]):
            return None
        return grouped.args[0], groups, (permuted.args[0], value.args[0])

    def _concatenated(self, var: Var, value: Expr) -> None:
        parts = self._users.fields(value.args[0])
        shapes = [shape_of(part) for part in parts]
        if int(value.attrs.axis) not in (1, -3) or any(s is None or len(s) != 4 for s in shapes):
            return
        if dtype_of(value) != DType.FLOAT32 or not any(part in self._homes for part in parts):
            return
        homes = []
        for part in parts:
            if part in self._homes:
                homes.append(part)
                continue
            # A tensor of another operator: its copy has a home.
            n, c, h, w = shape_of(part) or ()
            copy = Home(Buffer(n, h, w, c), np.arange(c))
            key = (var, len(homes))
            self._homes[key] = copy
            self.copied.setdefault(var, []).append((part, key))
            homes.append(key)
        for key in homes[1:]:
            self._merge(self._homes[homes[0]].buffer, self._homes[key].buffer)
        slots = np.concatenate([self._homes[key].slots for key in homes])
        self._homes[var] = Home(self._homes[homes[0]].buffer, slots)
        self._views[var] = None

    def _merge(self, kept: Buffer, other: Buffer) -> None:
        """Moves all tensors of a buffer behind those of another."""
        if kept is other:
            return
        for var, home in self._homes.items():
            if home.buffer is other:
                self._homes[var] = Home(kept, home.slots + kept.channels)
        kept.channels += other.channels
