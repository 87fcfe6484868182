"""Static estimates of cycles: llvm-mca over code that was counted."""

from __future__ import annotations

import pytest

from pconvgen.devices import static_cycles
from pconvgen.devices.counts import Block, Span
from pconvgen.errors import PconvgenError
from pconvgen.targets.presets import TARGETS

FMLA_CHAIN = 0x4E22CC20
"""fmla v0.4s, v1.4s, v2.4s: each waits for the one before."""
RET = 0xD65F03C0

needs_mca = pytest.mark.skipif(static_cycles.version() is None, reason="llvm-mca is not installed")


def span(*codes: tuple[int, tuple[int, ...]]) -> Span:
    """Blocks with how often they run."""
    blocks = tuple(Block(runs, 0x10000 * number, code) for number, (runs, code) in enumerate(codes))
    return Span({"all": sum(runs * len(code) for runs, code in codes)}, blocks)


@needs_mca
@pytest.mark.parametrize("model", sorted({*static_cycles.MODELS.values(), static_cycles.SMALLEST}))
def test_a_chain_takes_longer_than_independent_instructions(model: str) -> None:
    chain = span((1000, (FMLA_CHAIN,) * 16))
    independent = span((1000, tuple(FMLA_CHAIN + register for register in range(16, 32))))
    assert static_cycles.estimate(chain, model) > 1.5 * static_cycles.estimate(independent, model) > 3900


@needs_mca
def test_cycles_add_up_over_blocks_and_runs() -> None:
    one, other = (1000, (FMLA_CHAIN,) * 16), (300, (FMLA_CHAIN + 1,) * 32)
    parts = [static_cycles.estimate(span(block), "neoverse-n1") for block in (one, other)]
    assert static_cycles.estimate(span(one, other), "neoverse-n1") == pytest.approx(sum(parts))
    twice = span((2000, one[1]))
    assert static_cycles.estimate(twice, "neoverse-n1") == pytest.approx(2 * parts[0])


@needs_mca
def test_every_64_bit_preset_has_a_model() -> None:
    for name in TARGETS:
        if name != "host" and TARGETS[name].core.isa.name == "neon":
            assert static_cycles.estimate(span((10, (FMLA_CHAIN,))), static_cycles.model_of(TARGETS[name].cpu)) > 0


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PconvgenError, match="apt-get install llvm"):
        static_cycles.find_tools()
