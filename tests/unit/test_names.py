"""What has a row in a table is never told from others by its name: a new row would be missing there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from pconvgen.schedules import ISAS
from pconvgen.schedules.cores import CORES
from pconvgen.sparsity import STRUCTURES
from pconvgen.templates.family import FAMILIES
from pconvgen.values.dtype import DType

ROOT = Path(__file__).parents[2]
NAMES = {*STRUCTURES, *FAMILIES, *ISAS, *CORES, *DType}
HOMES = ("pconvgen/values/dtype.py", "pconvgen/targets/host.py")
"""Where formats are; where names of processor features, of which some are called as instruction sets, are compared."""


def compared(path: Path) -> Iterator[tuple[int, str]]:
    """(line, name) of the names that a file compares something with, also in tuples and dicts."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            for constant in (leaf for side in (node.left, *node.comparators) for leaf in ast.walk(side)):
                if isinstance(constant, ast.Constant) and constant.value in NAMES:
                    yield node.lineno, constant.value


def test_nothing_is_compared_with_a_name_of_a_table() -> None:
    files = [path for folder in ("pconvgen", "templates", "schedules") for path in (ROOT / folder).rglob("*.py")]
    found = {
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in files
        if str(path.relative_to(ROOT)) not in HOMES
        for line, name in compared(path)
    }
    assert len(files) > 100
    assert found == set()
