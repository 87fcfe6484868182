"""Python environments of other engines, in the user's cache folder; made anew when requirements change."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from pconvgen.devices.process import run_child
from pconvgen.errors import PconvgenError

PYTHONS = (sys.executable, "python3.13", "python3.12", "python3.11", "python3.10", "python3.9", "python3.8")
INSTALL_S = 900

Version = tuple[int, int]


def environment(name: str, requirements: Sequence[str], newest: Version) -> Path:
    """The Python of an environment with these requirements.

    Parameters
    ----------
    name: the engine, for messages.
    requirements: as pip takes them, with versions; the engine first.
    newest: the newest Python that it has wheels for.

    Raises PconvgenError when no Python suits it or its packages are not to be had.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pconvgen"
    folder = base / requirements[0].replace("==", "-")
    python, done = folder / "bin" / "python", folder / "installed"
    wanted = "\n".join(requirements)
    if done.is_file() and done.read_text() == wanted:
        return python
    what = f"making the environment of {name}"
    found = _python(name, newest)
    shutil.rmtree(folder, ignore_errors=True)
    run_child([found, "-m", "venv", str(folder)], what, timeout_s=INSTALL_S)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    run_child(install, what, timeout_s=INSTALL_S, remedy="connect to a package index once")
    done.write_text(wanted)
    return python


def _python(engine: str, newest: Version) -> str:
    """A Python that the engine has wheels for."""
    for name in PYTHONS:
        try:
            version = run_child([name, "-c", "import sys; print(*sys.version_info[:2])"], name, timeout_s=60)
        except PconvgenError:
            continue
        if tuple(map(int, version.split())) <= newest:
            return name
    raise PconvgenError(
        f"no Python for {engine}",
        found="none of " + ", ".join(PYTHONS),
        expected=f"3.8 to {newest[0]}.{newest[1]}",
        remedy="put one of them on the PATH",
    )
