"""Who imports TVM: what knows its moving API, and front ends, which extend its importers."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPEAKERS = ("pconvgen/tvm_compat", "pconvgen/frontend")


def modules_imported(path: Path) -> set[str]:
    """The first name of every absolute import in a file, within functions as well."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_tvm_is_imported_behind_its_rooms_only() -> None:
    files = [path for folder in ("pconvgen", "templates", "schedules") for path in (ROOT / folder).rglob("*.py")]
    named = {str(path.relative_to(ROOT)): modules_imported(path) for path in files}
    users = [name for name, modules in named.items() if any(one.partition(".")[0] == "tvm" for one in modules)]
    assert "pconvgen/tvm_compat/tir.py" in users
    assert [name for name in users if not name.startswith(SPEAKERS)] == []


def test_rooms_know_nothing_of_the_compiler_above() -> None:
    below = ("pconvgen.tvm_compat.", "pconvgen.values.", "pconvgen.values.target", "pconvgen.errors")
    below = (*below, "pconvgen.affinity", "pconvgen.elf", "pconvgen.watch")
    rooms = [modules_imported(path) for path in (ROOT / "pconvgen/tvm_compat").glob("*.py")]
    ours = {module for modules in rooms for module in modules if module.startswith("pconvgen")}
    assert {module for module in ours if not module.startswith(below)} == set()
