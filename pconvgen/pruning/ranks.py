"""What one process finds out for all of a distributed training: measurements differ, and ranks must prune alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import distributed

T = TypeVar("T")


def on_first_rank(compute: Callable[[], T]) -> T:
    """What the first rank computes, on all ranks; each has to call this. Without a process group it is just computed.

    Raises what the computation raises, on all ranks.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return compute()
    box: list[T | Exception | None] = [None]
    if distributed.get_rank() == 0:
        try:
            box = [compute()]
        except Exception as error:  # or the other ranks would wait for it for ever
            box = [error]
    distributed.broadcast_object_list(box, src=0)
    if isinstance(box[0], Exception):
        raise box[0]
    return box[0]  # type: ignore[return-value]
