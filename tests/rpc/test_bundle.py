"""What `pconvgen runtime build` writes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from commands import Invoke, invoker
from elf import needs_readelf, read_elf

from pconvgen.devices import bundle, get_device
from pconvgen.targets.linker import PAGE_BYTES

pytestmark = pytest.mark.cross


@pytest.fixture
def invoke(capfd: pytest.CaptureFixture[str]) -> Invoke:
    return invoker(capfd)


@needs_readelf
def test_a_bundle_for_android_needs_nothing_of_the_device(tmp_path: Path, invoke: Invoke) -> None:
    if reason := get_device("emulated").available():
        pytest.skip(reason)
    folder = tmp_path / "phone"
    code, out, err = invoke("runtime", "build", "--target", "android-arm64", "-o", folder)
    assert code == 0, err
    assert "not on a phone" in out
    about = json.loads((folder / "bundle.json").read_text())
    assert about["machine"] == "aarch64"
    libraries = {path.name for path in (folder / "lib").iterdir()}
    for path in (folder / "rpc_server", *(folder / "lib").iterdir()):
        elf = read_elf(path)
        assert "AArch64" in elf.printed
        assert elf.needed <= libraries, path.name
        assert min(elf.alignments) >= PAGE_BYTES, path.name
    # Again over itself, which nothing else may be written over.
    assert invoke("runtime", "build", "--target", "android-arm64", "-o", folder)[0] == 0
    (folder / "bundle.json").unlink()
    code, _, err = invoke("runtime", "build", "--target", "android-arm64", "-o", folder)
    assert (code, "the folder is not empty" in err) == (2, True)


@pytest.mark.parametrize(
    ("name", "message"), [("armv7a", "no runtime for armv7a"), ("phone", "expected one of aarch64-linux")]
)
def test_what_there_is_no_runtime_for(name: str, message: str, tmp_path: Path, invoke: Invoke) -> None:
    code, _, err = invoke("runtime", "build", "--target", name, "-o", tmp_path / "b")
    assert (code, message in err) == (2, True), err
    assert not (tmp_path / "b").exists()


def test_a_server_says_what_it_takes(host_bundle: Path) -> None:
    for options in ([], ["--key", "a b"], ["--key", "me", "--port", "99999"], ["--what", "x"], ["--key"]):
        done = subprocess.run([host_bundle / bundle.START, *options], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "usage: rpc_server --key NAME" in done.stderr
