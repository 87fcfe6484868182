"""Where a run of the tests begins to count its random kernels: elsewhere for each commit, so that they add up.

A number stands for the same workload in every run: whoever has the number of one that fails needs nothing else.
"""

from __future__ import annotations

import subprocess
import zlib
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIGITS = 8
"""Of the commit's hash: numbers that can still be typed."""


def first_workload() -> tuple[int, str]:
    """The first number to check, and what it comes from."""
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        release = version("pconvgen")
        return zlib.crc32(release.encode()), f"version {release}"
    return int(commit[:DIGITS], 16), f"commit {commit[:DIGITS]}"
