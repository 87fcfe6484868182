"""Networks in half precision as ARM libraries under emulation, against PyTorch in float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import pconvgen
from pconvgen.devices import get_device
from pconvgen.errors import UsageError
from pconvgen.frontend import load_model
from pconvgen.manifest import read_manifest
from pconvgen.targets.formats import has_half_arithmetic
from pconvgen.targets.presets import TARGETS, get_target
from pconvgen.values.precision import Precision
from pconvgen.verify import TOLERANCE_HALF, TOLERANCE_STORED_HALF, verify
from tests.networks import imported
from tests.segmenter import SHAPE, segmenter
from tests.small import small

pytestmark = pytest.mark.cross


@pytest.fixture(scope="module")
def _emulator() -> None:
    reason = get_device("emulated").available()
    if reason:
        pytest.skip(f"ARM code cannot be run: {reason}")


@pytest.mark.usefixtures("_emulator")
def test_a_network_is_close_and_chooses_the_same_class() -> None:
    result = verify(pconvgen.compile(imported("mobilenet_v3", "pattern"), "cortex-a76", dtype="float16"), seeds=(0,))
    assert 1e-5 < result.max_relative_error <= TOLERANCE_HALF / 3, "float32 would be closer than that"
    assert result.passed
    assert result.same_top == 1


@pytest.mark.usefixtures("_emulator")
def test_transposed_convolutions_and_pooling() -> None:
    model, errors = load_model(segmenter("simd_block"), example=(torch.zeros(SHAPE),)), {}
    for target, sums in (("android-arm64-fp16", "float16"), ("cortex-a53", "float32")):
        result = verify(pconvgen.compile(model, target, dtype="float16", accumulate=sums), seeds=(0,))
        errors[sums] = result.max_relative_error
        assert result.same_top >= 0.98
    assert 1e-5 < errors["float32"] <= TOLERANCE_STORED_HALF / 3
    assert errors["float32"] < errors["float16"] <= 1e-2


def test_which_targets_compute_in_half_precision() -> None:
    able = {name for name in TARGETS if name != "host" and has_half_arithmetic(get_target(name))}
    newer = {"cortex-a55", "cortex-a76", "cortex-a78", "cortex-x1", "neoverse-n1", "raspberry-pi-5"}
    assert able == newer | {"android-arm64-fp16"}


def test_others_refuse() -> None:
    model = imported("resnet18", None)
    for target in ("cortex-a53", "cortex-a72", "android-arm64", "cortex-a7"):
        with pytest.raises(UsageError, match=r"float16.*--(accumulate float32|weights float16)"):
            pconvgen.compile(model, target, dtype="float16")


def test_the_library_says_its_formats(tmp_path: Path) -> None:
    model, sizes = load_model(small(), example=(torch.zeros(1, 3, 8, 8),)), []
    for formats in ({}, {"weights": "float16"}, {"dtype": "float16"}):
        compiled = pconvgen.compile(model, "cortex-a76", **formats)
        path = compiled.export(tmp_path / "model.so")
        assert read_manifest(path).precision == compiled.manifest.precision
        sizes.append(sum(decision.nbytes for decision in compiled.decisions))
    assert compiled.manifest.precision == Precision("float16", "float16", "float16")
    assert all(dtype == "float32" for _, _, dtype in (*compiled.manifest.inputs, *compiled.manifest.outputs))
    # The indices of the blocks stay.
    assert max(sizes[1:]) < 0.7 * sizes[0]
