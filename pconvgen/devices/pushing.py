"""A bundle's way onto a phone: only what the phone lacks, in one compressed file where the phone can unpack that.

The phone keeps a list of what it has, which is taken away before anything is pushed and comes back after it, so that a
push that was cut short is not taken for a whole one.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pconvgen.devices.adb import Phone

PUSH_S = 300
LIST, NEW_LIST, PACKED = "contents", "contents.new", "changed.tar.gz"
ABI, UNPACKS = "abi ", "unpacks"
"""What lines of the phone's answer begin with."""
FILE = re.compile(r"([0-9a-f]{16})  (\S+)")
"""A line of the list, after the first, which is a digest of the others."""
FASTEST = 1
"""Of gzip's levels: the others take longer than their fewer bytes do by USB."""


def ask_or(start: str, folder: str, wanted: Mapping[str, str]) -> str:
    """A command for the phone's shell: tells its processor, then goes on with `start` where the folder has what is
    wanted (files' digests by name), else tells what it has and whether it can unpack."""
    there = f"{folder}/{LIST}"
    return (
        f'echo "{ABI}$(getprop ro.product.cpu.abi)"; '
        f'read -r first 2>/dev/null < {there}; [ "$first" = "{_lines(wanted)[0]}" ] && {start}; '
        f"cat {there} 2>/dev/null; rm -f {there}; "
        f"command -v gzip >/dev/null && command -v tar >/dev/null && echo {UNPACKS}"
    )


@dataclass(frozen=True)
class Lacking:
    """What a phone lacks of a bundle.

    Attributes
    ----------
    bundle: its folder.
    wanted: its files' digests by name.
    there: those that the phone has.
    unpacks: whether the phone can unpack a compressed file.
    """

    bundle: Path
    wanted: Mapping[str, str]
    there: Mapping[str, str]
    unpacks: bool

    @classmethod
    def told(cls, bundle: Path, wanted: Mapping[str, str], answer: str) -> Lacking:
        """By what the phone has answered to `ask_or`."""
        lines = answer.splitlines()
        there = {found[2]: found[1] for line in lines if (found := FILE.fullmatch(line))}
        return cls(bundle, wanted, there, UNPACKS in lines)

    @property
    def files(self) -> list[str]:
        """The names of the files to push."""
        return [name for name, digest in self.wanted.items() if self.there.get(name) != digest]

    def push(self, phone: Phone, folder: str) -> None:
        """Pushes them into a folder, which need not be there. Raises PconvgenError when that fails."""
        with tempfile.TemporaryDirectory(prefix="pconvgen-push-") as name:
            staged = Path(name)
            (staged / NEW_LIST).write_text("\n".join([*_lines(self.wanted), ""]))
            if self.unpacks:
                with tarfile.open(staged / PACKED, "w:gz", compresslevel=FASTEST) as archive:
                    for path in self.files:
                        archive.add(self.bundle / path, path)
            else:
                for path in self.files:
                    (staged / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(self.bundle / path, staged / path)
            phone.adb("push", f"{staged}/.", folder, timeout_s=PUSH_S, remedy="the bundle takes 12 MB there")

    def placing(self, folder: str) -> str:
        """The command for the phone's shell that puts in place what was pushed."""
        old = [PACKED, *(name for name in self.there if name not in self.wanted)]
        unpack = []
        if self.unpacks:
            # A server may be running what is there, and tar may write into it; adb makes new files.
            unpack = [f"rm -f {' '.join(self.files)}", f"gzip -dc {PACKED} | tar xf -"]
        return " && ".join([f"cd {folder}", *unpack, f"rm -f {' '.join(old)}", f"mv {NEW_LIST} {LIST}"])


def _lines(wanted: Mapping[str, str]) -> list[str]:
    """The list, as the phone keeps it."""
    lines = [f"{digest}  {name}" for name, digest in wanted.items()]
    return [hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16], *lines]
