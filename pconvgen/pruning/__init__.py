"""Pruning in a training loop, to the structures that the compiler makes fast and against a budget of milliseconds."""

from __future__ import annotations

from pconvgen.pruning.admm import ADMMPruner, Rho
from pconvgen.pruning.budget import Budget, Density, Latency, Macs, Size
from pconvgen.pruning.distillation import Distillation
from pconvgen.pruning.log import StepLog, progress_line, tensorboard
from pconvgen.pruning.magnitude import IterativePruner, OneShotPruner
from pconvgen.pruning.pruner import Pruner
from pconvgen.pruning.reweighted import ReweightedPruner

__all__ = [
    "ADMMPruner",
    "Budget",
    "Density",
    "Distillation",
    "IterativePruner",
    "Latency",
    "Macs",
    "OneShotPruner",
    "Pruner",
    "ReweightedPruner",
    "Rho",
    "Size",
    "StepLog",
    "progress_line",
    "tensorboard",
]
