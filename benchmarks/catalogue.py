"""The list of the benchmarks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: a package that `python -m` runs, with `--help`.

    Attributes
    ----------
    name: of the package, below `benchmarks`.
    measures: what it prints, in one line.
    takes: about how long a full run takes on two cores.
    promises: whether it exits with 1 when a promise of this version is missed.
    """

    name: str
    measures: str
    takes: str
    promises: bool = False

    @property
    def package(self) -> str:
        """As `python -m` takes it."""
        return f"benchmarks.{self.name}"


BENCHMARKS = (
    Benchmark("demo", "the main job, from training to running on emulated ARM: make demo", "minutes"),
    Benchmark("peak", "FMAs and bytes per second that the core can do at most", "seconds"),
    Benchmark(
        "kernels", "kernels of single layers under the roofs of the core, and in DeepSparse", "half an hour", True
    ),
    Benchmark("kernels.winograd", "dense 3x3 layers, direct and by Winograd", "minutes"),
    Benchmark("networks", "whole networks beside other engines", "hours", True),
    Benchmark("networks.operators", "where the time of networks goes outside of layers", "minutes"),
    Benchmark("networks.denormals", "what denormal numbers add to times", "minutes", True),
    Benchmark("networks.rpc_overhead", "what measuring over RPC adds to times", "a minute", True),
    Benchmark("arm.kernels", "instructions of 3x3 layers on ARM, and other engines'", "half an hour", True),
    Benchmark("arm.networks", "instructions of whole networks on ARM, and other engines'", "an hour", True),
    Benchmark("pruning", "accuracy after pruning, by structure and against milliseconds", "20 minutes", True),
    Benchmark("tuning", "the tuner against measuring every schedule of a layer", "hours", True),
    Benchmark("latency", "how well latency is predicted; makes the models that come with pconvgen", "two hours", True),
    Benchmark("compiling.seconds", "seconds of compiling, and predicted cycles of what was chosen", "10 minutes"),
    Benchmark("compiling.same_libraries", "whether a change of the compiler changes what it writes", "hours"),
)
"""In the order in which they are listed."""
