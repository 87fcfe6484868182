"""What this version promises of pruning, and whether a run kept it."""

from __future__ import annotations

from statistics import mean

from benchmarks.pruning import accuracy, latency
from benchmarks.pruning.accuracy import CASES, COMPARED, TRAINED, paired

LOSS = {0.25: 0.5, 0.125: 1.0}
"""Points that accuracy may be below that of the dense network, by density."""
PROMISED = ("pattern", "simd_block", "block_punched")
WEIGHTS_S = 1.0
"""For a step of 25 million weights."""


def missed(trained: list[accuracy.Outcome], timed: list[latency.Outcome], speeds: dict[str, float]) -> list[str]:
    """What was promised and is not so."""
    found = []
    for network in TRAINED:
        for structure, density in CASES:
            mine = [o for o in trained if (o.network, o.structure, o.density) == (network, structure, density)]
            loss = mean(o.dense - o.admm for o in mine)
            if structure in PROMISED and loss > LOSS[density]:
                found.append(f"{network}, {structure} {density}: {loss:.2f} points below dense, {LOSS[density]} asked")
    for structure, density in CASES:
        mine = [o for o in trained if (o.structure, o.density) == (structure, density)]
        if density == COMPARED and paired(mine, "one_shot")[0] <= 0:
            found.append(f"{structure} {density}: ADMM is not better than one-shot with the same fine-tuning")
    for row in timed:
        if row.way == "ALCS" and not 0.95 <= row.ms / row.budget_ms <= 1.05:
            found.append(f"seed {row.seed}: {row.ms / row.budget_ms:.3f} of the budget, 0.95 to 1.05 asked")
    for share in latency.SHARES:
        ways = {way: mean(row.accuracy for row in latency.at(timed, way, share)) for way in ("ALCS", "uniform")}
        if ways["ALCS"] < ways["uniform"]:
            found.append(f"at {share} of the time: ALCS {ways['ALCS']:.2f} %, uniform {ways['uniform']:.2f} %")
    found += [f"an ADMM step, {name}: {s:.2f} s" for name, s in speeds.items() if s > WEIGHTS_S]
    return found
