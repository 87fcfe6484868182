"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from pathlib import Path

import pytest

from pconvgen.errors import PconvgenError
from pconvgen.files import check_writable, replacing, write_json, write_text


def test_result_takes_its_place_with_the_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    usual = tmp_path / "usual"
    usual.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.txt", "usual"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_goes_wrong_leaves_the_old_file(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_names_the_file_and_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    message = r"a\.txt: cannot be written \(found No space left on device\); .*free"
    with pytest.raises(PconvgenError, match=message), replacing(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["/proc/pconvgen/a.txt", "/nowhere/a.txt", "/tmp", "/dev/null/a.txt"])
def test_paths_that_cannot_be_written(path: str) -> None:
    with pytest.raises(PconvgenError, match=f"{path}: cannot be written"):
        write_text(Path(path), "text")
    with pytest.raises(PconvgenError, match=f"{path}: cannot be written"):
        check_writable(Path(path))


def test_check_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    check_writable(path)
    assert not list(tmp_path.iterdir())
    path.write_text("old")
    check_writable(path)
    assert path.read_text() == "old"


def test_symbolic_link_keeps_its_target(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "a.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_writable(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "text")
    reader.join(timeout=10)
    assert read == ["text"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full")
def test_full_device() -> None:
    with pytest.raises(PconvgenError, match=r"/dev/full: cannot be written .*No space left"):
        write_text(Path("/dev/full"), "text")
    assert Path("/dev/full").is_char_device()


def test_json_ends_with_a_newline(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": [1, None]})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"a": [1, None]}
    assert text.endswith("}\n")
