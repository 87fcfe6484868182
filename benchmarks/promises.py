"""What becomes of a promise when it is judged; each benchmark's promises lie in its own folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

REASON_WIDTH = 60


@dataclass(frozen=True)
class Verdict:
    """What was measured of a promise.

    Attributes
    ----------
    text: what was promised.
    found: what was measured.
    word: ok, MISSED, or why it was not judged.
    """

    text: str
    found: str
    word: str

    @property
    def missed(self) -> bool:
        """Whether the promise was broken."""
        return self.word == "MISSED"


def verdict_table(verdicts: Sequence[Verdict], title: str = "promises") -> Table:
    """What was promised and what was measured."""
    table = Table("promise", "measured", title=title, title_justify="left")
    table.add_column(max_width=REASON_WIDTH)
    for verdict in verdicts:
        style = "bold red" if verdict.missed else "green" if verdict.word == "ok" else "yellow"
        table.add_row(verdict.text, verdict.found, Text(verdict.word, style))
    return table
