"""docs/extending.md, carried out: an example's code, and nothing else, is written into a copy of the repository."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.host

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "extending.md").read_text()
SECTIONS = dict(zip(("structure", "core", "family"), DOCUMENT.split("\n## ")[1:], strict=True))
BLOCK = re.compile(
    r"`(?P<path>[^`]+)`[^`\n]*:\n\n```(?P<kind>python|diff)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)

NEW = {"structure": 1, "core": 0, "family": 2}
"""Files that an example adds: one, none, a folder."""
CHANGED = {
    "structure": {"pconvgen/sparsity/__init__.py"},
    "core": {"schedules/cores/intel.py"},
    "family": {"templates/family.py", "pyproject.toml"},
}
"""The tables that it adds a row to."""
ITERATE = ("tests/unit/test_sparsity_encode.py", "tests/unit/test_sparsity_project.py")
"""Tests that iterate over structures."""


def copy(folder: Path) -> Path:
    """The packages with the tests in a folder from which Python imports them, not from where they are installed."""
    unwanted = shutil.ignore_patterns("__pycache__", ".*")
    for name in ("pconvgen", "templates", "schedules", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
    for name in ("templates", "schedules"):
        (folder / "pconvgen" / name).symlink_to(folder / name)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def write(section: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Does what a section of the document says; (kind of the block, file) of each of its blocks."""
    assert len(list(BLOCK.finditer(section))) == section.count("```") // 2, "a block without its file"
    for block in BLOCK.finditer(section):
        path = folder / block["path"]
        if block["kind"] == "python":
            assert not path.exists()
            path.parent.mkdir(exist_ok=True)
            path.write_text(block["text"])
        else:
            for hunk in block["text"].strip("\n").split("\n\n"):
                add(path, hunk.split("\n"))
        yield block["kind"], path


def add(path: Path, hunk: list[str]) -> None:
    """Adds the lines with a plus behind those before them, which the file has once."""
    assert {line[0] for line in hunk} == {" ", "+"}, "rows are added, nothing is changed"
    before = "".join(f"{line[1:]}\n" for line in hunk if line[0] == " ")
    text = path.read_text()
    assert text.count(before) == 1, f"{path} has no such place: {before}"
    path.write_text(text.replace(before, "".join(f"{line[1:]}\n" for line in hunk)))


def run(folder: Path, *command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("example", SECTIONS)
def test_the_document_is_all_that_it_takes(example: str, tmp_path: Path) -> None:
    if example == "core" and platform.machine() != "x86_64":
        pytest.skip("the document's core has AVX2")
    written = list(write(SECTIONS[example], copy(tmp_path)))
    assert sum(kind == "python" for kind, _ in written) == NEW[example]
    assert {str(path.relative_to(tmp_path)) for kind, path in written if kind == "diff"} == CHANGED[example]
    code = [str(path) for _, path in written if path.suffix == ".py"]
    run(tmp_path, "ruff", "check", "--no-cache", *code)
    run(tmp_path, "ruff", "format", "--check", "--no-cache", *code)
    run(tmp_path, "tests.extended", example)
    if example == "structure":
        run(tmp_path, "pytest", "-q", "-k", "kernel_rows", *ITERATE)
    listed = set(tomllib.loads((tmp_path / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    assert listed == {".".join(path.parent.relative_to(tmp_path).parts) for path in packages(tmp_path / "pconvgen")}


def packages(folder: Path) -> Iterator[Path]:
    """The files that make folders packages, also behind links."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from packages(path)
        elif path.name == "__init__.py":
            yield path
