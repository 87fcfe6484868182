"""A Python for 64-bit ARM Linux and the engines' ARM wheels, in the user's cache; nothing is installed on this machine.

The interpreter comes from Debian's arm64 packages through an apt whose whole state is a folder of its own, the wheels
from pip. qemu runs both.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from pconvgen.devices import toolchain
from pconvgen.devices.process import run_child
from pconvgen.errors import PconvgenError

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PYTHON = "3.11"
"""Debian 12's. It decides which wheels fit."""
PACKAGES = (f"python{PYTHON}-minimal", f"libpython{PYTHON}-stdlib", "libstdc++6")
FETCH_TIMEOUT_S = 900

# Engines choose their kernels by this file. What a Cortex-A76's says.
CPUINFO = """processor\t: 0
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0b
CPU revision\t: 1
"""


def python_command(site: Path, options: Sequence[str]) -> list[str]:
    """The command that starts the ARM Python with the packages in `site`; `options` are the emulator's.

    Raises
    ------
    PconvgenError: the interpreter is not to be had.
    """
    root = _cached("python", (SUITE, *PACKAGES, CPUINFO), _fill_root)
    libraries = ":".join(str(root / folder / "aarch64-linux-gnu") for folder in ("lib", "usr/lib"))
    variables = {"LD_LIBRARY_PATH": libraries, "PYTHONHOME": root / "usr", "PYTHONPATH": site, "OMP_NUM_THREADS": 1}
    settings = [word for name, value in variables.items() for word in ("-E", f"{name}={value}")]
    return [toolchain.emulator(), "-L", str(root), *settings, *options, str(root / "usr/bin" / f"python{PYTHON}")]


def site_packages(requirements: Sequence[str]) -> Path:
    """A folder with ARM wheels of exactly these requirements; nothing that they depend on.

    Raises
    ------
    PconvgenError: pip does not find them.
    """

    def fill(folder: Path) -> None:
        platforms = ("any", "manylinux2014_aarch64", *toolchain.PLATFORMS)
        selection = [word for name in platforms for word in ("--platform", name)]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", PYTHON, *selection, "--target", str(folder), *requirements]
        run_child(
            command,
            f"fetching the ARM wheels of {requirements[0]}",
            timeout_s=FETCH_TIMEOUT_S,
            remedy="connect to a package index once",
        )

    return _cached(requirements[0].split("==")[0], requirements, fill)


def _cached(name: str, key: Sequence[str], fill: Callable[[Path], None]) -> Path:
    """The folder that `fill` makes from `key`; it appears under its name only when it is complete."""
    base = toolchain.cache_folder().parent / "arm-peers"
    base.mkdir(exist_ok=True)
    folder = base / f"{name}-{sha256(chr(0).join(key).encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=base, prefix="fetch-") as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            fill(made)
            os.replace(made, folder)
    return folder


def _fill_root(root: Path) -> None:
    """Unpacks the packages and what they depend on."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb") and KEYRING.is_file()):
        raise PconvgenError(
            "no Python for ARM",
            expected=f"apt-get, dpkg-deb and {KEYRING}, with which Debian's arm64 packages are fetched",
            remedy="apt-get install debian-archive-keyring on Debian or Ubuntu",
        )
    with tempfile.TemporaryDirectory(prefix="pconvgen-apt-") as name:
        state = Path(name)
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (state / folder).mkdir(parents=True)
        (state / "status").touch()
        (state / "sources.list").write_text(f"deb [signed-by={KEYRING}] {MIRROR} {SUITE} main\n")
        settings = {
            "APT::Architecture": "arm64",
            "APT::Architectures": "arm64",
            "APT::Install-Recommends": "0",
            "Debug::NoLocking": "1",
            "Dir::State": state / "state",
            "Dir::State::status": state / "status",
            "Dir::Cache": state / "cache",
            "Dir::Etc::sourcelist": state / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
        }
        apt = ["apt-get", "-qq", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]
        for action in (["update"], ["install", "--yes", "--download-only", *PACKAGES]):
            run_child([*apt, *action], "fetching a Python for ARM", timeout_s=FETCH_TIMEOUT_S)
        for package in sorted((state / "cache/archives").glob("*.deb")):
            run_child(["dpkg-deb", "-x", str(package), str(root)], f"unpacking {package.name}", timeout_s=60)
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text(CPUINFO)
