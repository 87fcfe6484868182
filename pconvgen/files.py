"""Writing files so that nobody ever sees half of one, and where what is kept for later lies."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pconvgen.errors import PconvgenError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and is removed otherwise.

    A symbolic link keeps pointing to its file. What is no regular file (a pipe, /dev/stdout) is written to at the end.

    Raises PconvgenError when the folder cannot be written or the disk is full.
    """
    temporary = None
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "it is a folder")
        special = _is_special(path)
        target = path if special else Path(os.path.realpath(path))
        folder = None if special else target.parent
        # A name may be as long as the file system allows, and this one is longer.
        handle, name = tempfile.mkstemp(prefix=f".{target.name[:32]}.", suffix=target.suffix, dir=folder)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        if special:
            # Renaming would put a file where the device is.
            with temporary.open("rb") as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            return
        # mkstemp makes files that only their owner reads; a result has the usual permissions.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PconvgenError(
            "cannot be written", file=path, found=reason, remedy="choose another output path or free some space"
        ) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path`, whole or not at all. Raises what `replacing` raises."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, data: Any) -> None:
    """Writes plain values as indented JSON, whole or not at all. Raises what `replacing` raises."""
    write_text(path, json.dumps(data, indent=2) + "\n")


def check_writable(path: Path) -> None:
    """Finds out before a long computation whether its result can be written to `path`, and leaves no trace.

    Raises what `replacing` raises.
    """
    if _is_special(path):
        return
    with suppress(_UnwrittenError), replacing(path):
        raise _UnwrittenError


class _UnwrittenError(Exception):
    """Leaves `replacing` before it replaces anything."""


def _is_special(path: Path) -> bool:
    """Whether `path` is there and is neither file nor folder."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def user_cache() -> Path:
    """The folder of what is kept for later, whether or not it exists: in $XDG_CACHE_HOME, else in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pconvgen"
