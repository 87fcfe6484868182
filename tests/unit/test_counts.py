"""What the counting plugin writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pconvgen.devices.counts import Block, Span, net, read_spans
from pconvgen.errors import PconvgenError

LINES = (
    '{"classes": {"load": 2, "other": 3}, "blocks": [[1, 4096, "d503201fd65f03c0"], [1, 8192, "d503201f"]]}\n'
    '{"classes": {"load": 6, "other": 4}, "blocks": [[4, 4096, "d503201fd65f03c0"], [1, 8192, "d503201f"]]}\n'
)


def test_spans_are_read_and_subtracted(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    path.write_text(LINES)
    once, twice = read_spans(path)
    assert once == Span(
        {"load": 2, "other": 3}, (Block(1, 4096, (0xD503201F, 0xD65F03C0)), Block(1, 8192, (0xD503201F,)))
    )
    assert (once.instructions, twice.instructions) == (5, 10)
    assert net(twice, once) == Span({"load": 4, "other": 1}, (Block(3, 4096, (0xD503201F, 0xD65F03C0)),))


@pytest.mark.parametrize("text", ["", LINES[:60], "{}\n", None], ids=["no marks", "cut", "not ours", "no file"])
def test_what_is_no_count_is_an_error(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "counts.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PconvgenError, match="the emulator did not count"):
        read_spans(path)
