"""The manifest survives in a library, and damage to it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from pconvgen.arena import ActivationMemory
from pconvgen.errors import PconvgenError
from pconvgen.manifest import MARK, Manifest, read_manifest
from pconvgen.values.decision import Decision

MANIFEST = Manifest(
    target="host",
    inputs=(("x", (1, 3, 8, 8), "float32"),),
    outputs=(("y", (1, 4), "float32"), ("z", (), "float32")),
    decisions=(Decision("fc", "linear", (4, 3), 12, "dense", 1.0, "channels: dense", "the weight has no zeros"),),
    versions={"pconvgen": "0"},
    memory=ActivationMemory(192, 130),
)


def test_a_manifest_is_found_anywhere_in_the_library(tmp_path: Path) -> None:
    path = tmp_path / "model.so"
    path.write_bytes(b"\x7fELF" + bytes(100) + MANIFEST.to_bytes().tobytes() + bytes(100))
    assert read_manifest(path) == MANIFEST
    assert {name: value.shape for name, value in MANIFEST.random_inputs(0).items()} == {"x": (1, 3, 8, 8)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x7fELF" + bytes(100), "no pconvgen manifest"),
        (MANIFEST.to_bytes().tobytes(), "no pconvgen manifest"),
        (b"", "no pconvgen manifest"),
        (b"\x7fELF" + MARK + b"000000000002{}", "the manifest is damaged"),
        (b"\x7fELF" + MARK + b"000000000002[]", "the manifest is damaged"),
        (b"\x7fELF" + MARK + b"000000000003\xff\xff\xff", "the manifest is damaged"),
        (b"\x7fELF" + MARK, "the manifest is damaged"),
    ],
)
def test_a_damaged_manifest_is_told(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.so"
    path.write_bytes(content)
    with pytest.raises(PconvgenError, match=message):
        read_manifest(path)
    with pytest.raises(PconvgenError, match="cannot be read"):
        read_manifest(tmp_path / "missing.so")
