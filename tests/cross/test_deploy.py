"""The program of docs/deploy.md, built and run for 64-bit ARM."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import invoker

import pconvgen
from pconvgen.devices import bundle, get_device, toolchain
from pconvgen.header import c_header
from tests.small import SHAPE, Two, small

pytestmark = pytest.mark.cross

DOCS = Path(__file__).parents[2] / "docs" / "deploy.md"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle, as for Linux, and with one that brings a C library to run it with."""
    if reason := get_device("emulated").available():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("deploy")
    bundle.build(bundle.flavor("android-arm64"), folder / "android")
    (folder / "bundle" / "lib").mkdir(parents=True)
    shutil.copytree(folder / "android" / "include", folder / "bundle" / "include")
    for name in (bundle.LIBRARY, *toolchain.LIBRARIES):
        shutil.copy(folder / "android" / "lib" / name, folder / "bundle" / "lib")
    return folder


def test_the_program_of_the_docs_computes_what_pytorch_does(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, image = small(), np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    torch.export.save(torch.export.export(model, (torch.zeros(SHAPE),)), made / "model.pt2")
    code, out, err = invoker(capfd)(
        "compile", made / "model.pt2", "--target", "cortex-a76", "-o", made / "model.so", "--emit", "c-header"
    )
    assert code == 0, err
    assert "model.so and" in out
    (source,) = re.findall(r"^```cpp\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    (made / "app.cc").write_text(source)
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-I.", "-Ibundle/include", "-Lbundle/lib", "-lpconvgen"]
    flags += ["-Wl,-rpath-link,bundle/lib", "-Wl,-rpath,$ORIGIN/bundle/lib"]
    subprocess.run([toolchain.cross_compiler(), "app.cc", *flags, "-o", "app"], cwd=made, check=True)
    image.tofile(made / "input.bin")
    library = made / "android" / "lib"
    command = [toolchain.emulator(), "-cpu", "max", str(library / bundle.LOADER), "--library-path", str(library)]
    subprocess.run([*command, "./app", "model.so", "input.bin", "output.bin"], cwd=made, check=True)
    found = np.fromfile(made / "output.bin", np.float32)
    expected = model(torch.from_numpy(image)).detach().numpy().ravel()
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    failed = subprocess.run(
        [*command, "./app", "none.so", "x", "y"], cwd=made, capture_output=True, text=True, check=False
    )
    assert failed.returncode == 1
    assert "none.so" in failed.stderr


def test_headers_are_c_and_describe_every_tensor(made: Path) -> None:
    compiled = pconvgen.compile(pconvgen.load_model(Two().eval(), example=(torch.zeros(1, 4), torch.zeros(1, 4))))
    text = c_header(compiled.manifest, Path("2 nets-v1.so"))
    (made / "two.h").write_text(text)
    check = "\n".join(
        [
            '#include "two.h"',
            '_Static_assert(MODEL_2_NETS_V1_INPUTS == 2 && MODEL_2_NETS_V1_OUTPUTS == 2, "");',
            '_Static_assert(MODEL_2_NETS_V1_INPUT_1_ELEMENTS == 4 && MODEL_2_NETS_V1_OUTPUT_0_ELEMENTS == 3, "");',
            "const pconvgen_tensor *tensors(void) { return model_2_nets_v1_tensors; }",
        ]
    )
    (made / "two.c").write_text(check + "\n")
    command = ["aarch64-linux-gnu-gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-Ibundle/include", "-c", "two.c"]
    subprocess.run(command, cwd=made, check=True)
