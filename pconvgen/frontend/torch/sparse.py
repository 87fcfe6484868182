"""Weights that PyTorch keeps in a format for sparse tensors: compressed, as coordinates, or semi-structured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def is_sparse(tensor: Any) -> bool:
    """Whether a tensor is kept in a format for sparse tensors."""
    return isinstance(tensor, torch.Tensor) and (
        tensor.layout is not torch.strided or isinstance(tensor, torch.sparse.SparseSemiStructuredTensor)
    )


@contextmanager
def densified(module: nn.Module) -> Iterator[None]:
    """A module whose sparse parameters and buffers are dense meanwhile: exporting knows no other."""
    changed: list[tuple[dict[str, Any], str, Any]] = []
    for each in module.modules():
        for tensors in (each._parameters, each._buffers):
            changed += [(tensors, name, tensor) for name, tensor in tensors.items() if is_sparse(tensor)]
    for tensors, name, tensor in changed:
        dense = tensor.detach().to_dense()
        tensors[name] = nn.Parameter(dense, False) if isinstance(tensor, nn.Parameter) else dense
    try:
        yield
    finally:
        for tensors, name, tensor in changed:
            tensors[name] = tensor
