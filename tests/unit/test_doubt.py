"""How far predictions may be off follows from how far they were."""

from __future__ import annotations

import pytest

from pconvgen.tuning.doubt import FIRST, LATEST, Doubt


def test_nothing_is_known_at_first() -> None:
    assert Doubt().deviation == pytest.approx(FIRST)
    assert str(Doubt()) == "nothing was predicted"


def test_predictions_that_are_right_are_believed() -> None:
    doubt, seen = Doubt(), []
    for _ in range(40):
        doubt.compare(2.0, 2.02)
        seen.append(doubt.deviation)
    assert seen == sorted(seen, reverse=True)
    assert 0.01 < doubt.deviation < 0.15


def test_predictions_that_are_wrong_are_not() -> None:
    """Off by 1.6x and 2.2x, either way."""
    doubt = Doubt()
    for _ in range(8):
        doubt.compare(1.0, 1.6)
        doubt.compare(2.2, 1.0)
    assert doubt.deviation == pytest.approx(0.6, abs=0.1)
    assert str(doubt).startswith("the latest 16 predictions were off by 5")


def test_what_was_long_ago_does_not_count() -> None:
    doubt = Doubt()
    for _ in range(5):
        doubt.compare(1.0, 3.0)
    for _ in range(LATEST):
        doubt.compare(1.0, 1.01)
    assert doubt.deviation < 0.15
    assert len(doubt.errors) == LATEST
    assert max(doubt.errors) == pytest.approx(0.01)
