"""What count_instructions.c writes: the instructions between two marks, by class and by block of code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pconvgen.errors import PconvgenError


@dataclass(frozen=True)
class Block:
    """Code without a branch but at its end, as the emulator cut it.

    Attributes
    ----------
    runs: how often it was executed.
    address: of its first instruction in the emulated program.
    code: its instructions in order, each 32 bits.
    """

    runs: int
    address: int
    code: tuple[int, ...]


@dataclass(frozen=True)
class Span:
    """What was executed between two marks.

    Attributes
    ----------
    classes: instructions by coarse class.
    blocks: the code they are in.
    """

    classes: Mapping[str, int]
    blocks: tuple[Block, ...]

    @property
    def instructions(self) -> int:
        """All instructions."""
        return sum(self.classes.values())


def read_spans(path: Path) -> list[Span]:
    """The spans of a program in the order of their marks, at least one.

    Raises
    ------
    PconvgenError: the file is missing or cut short, or the program made no marks.
    """
    try:
        spans = [_span(json.loads(line)) for line in path.read_text().splitlines()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PconvgenError("the emulator did not count", file=path, found=error) from error
    if not spans:
        raise PconvgenError("the emulator did not count", file=path, found="no marks", expected="at least one span")
    return spans


def _span(row: dict) -> Span:
    def words(text: str) -> tuple[int, ...]:
        return tuple(int(text[at : at + 8], 16) for at in range(0, len(text), 8))

    return Span(row["classes"], tuple(Block(runs, address, words(code)) for runs, address, code in row["blocks"]))


def net(more: Span, less: Span) -> Span:
    """What `more` executed beyond `less`, another span of the same program."""
    runs = {(block.address, block.code): block.runs for block in less.blocks}
    left = (replace(block, runs=block.runs - runs.get((block.address, block.code), 0)) for block in more.blocks)
    classes = {name: count - less.classes.get(name, 0) for name, count in more.classes.items()}
    return Span(classes, tuple(block for block in left if block.runs > 0))
