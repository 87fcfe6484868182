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
from elf import read_elf

import pconvgen
from pconvgen.devices import bundle, get_device, ndk, toolchain
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
    (source,) = blocks("cpp")
    (made / "app.cc").write_text(source)
    build(made, "app")
    image.tofile(made / "input.bin")
    command = emulated(made)
    subprocess.run([*command, "./app", "model.so", "input.bin", "output.bin"], cwd=made, check=True)
    found = np.fromfile(made / "output.bin", np.float32)
    expected = model(torch.from_numpy(image)).detach().numpy().ravel()
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    failed = subprocess.run(
        [*command, "./app", "none.so", "x", "y"], cwd=made, capture_output=True, text=True, check=False
    )
    assert failed.returncode == 1
    assert "none.so" in failed.stderr


THREADS = """
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "model.h"

int main() {
  pconvgen_model* model = pconvgen_load("model.so");
  if (!model) return std::fprintf(stderr, "%s\\n", pconvgen_error()), 1;
  int wrong = 0;
  std::vector<std::thread> threads;
  std::vector<std::vector<float>> first(8, std::vector<float>(MODEL_OUTPUT_0_ELEMENTS));
  std::vector<int> bad(8);
  for (int thread = 0; thread < 8; ++thread) {
    threads.emplace_back([&, thread] {
      std::vector<float> input(MODEL_INPUT_0_ELEMENTS, thread - 3.5f), output(MODEL_OUTPUT_0_ELEMENTS);
      for (int run = 0; run < 125; ++run) {
        const void* inputs[] = {input.data()};
        void* outputs[] = {run ? output.data() : first[thread].data()};
        if (pconvgen_run(model, model_tensors, MODEL_INPUTS, MODEL_OUTPUTS, inputs, outputs)) ++bad[thread];
        if (run) bad[thread] += std::memcmp(output.data(), first[thread].data(), output.size() * sizeof(float)) != 0;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (int count : bad) wrong += count;
  for (int thread = 1; thread < 8; ++thread) wrong += first[thread] == first[0];
  pconvgen_free(model);
  return wrong ? std::fprintf(stderr, "%d of 1000 runs were wrong\\n", wrong), 1 : 0;
}
"""


def test_eight_threads_share_a_model(made: Path) -> None:
    """A thousand runs, each with the answer that its thread's input has."""
    torch.export.save(torch.export.export(small(), (torch.zeros(SHAPE),)), made / "model.pt2")
    compiled = pconvgen.compile(made / "model.pt2", "cortex-a76")
    compiled.export(made / "model.so")
    (made / "model.h").write_text(c_header(compiled.manifest, made / "model.so"))
    (made / "threads.cc").write_text(THREADS)
    build(made, "threads")
    subprocess.run([*emulated(made), "./threads"], cwd=made, check=True)


def emulated(made: Path) -> list[str | Path]:
    """What a command begins with that runs a program of the folder."""
    library = made / "android" / "lib"
    return [toolchain.emulator(), "-cpu", "max", library / bundle.LOADER, "--library-path", library]


def build(made: Path, program: str) -> None:
    """Compiles `program`.cc for 64-bit ARM against the bundle."""
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-I.", "-Ibundle/include", "-Lbundle/lib", "-lpconvgen"]
    flags += ["-Wl,-rpath-link,bundle/lib", "-Wl,-rpath,$ORIGIN/bundle/lib"]
    subprocess.run([toolchain.cross_compiler(), f"{program}.cc", *flags, "-o", program], cwd=made, check=True)


def cmake(source: Path, build: Path, *options: str) -> None:
    """Builds for 64-bit ARM."""
    cross = ["-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_CXX_COMPILER={toolchain.cross_compiler()}"]
    subprocess.run(["cmake", "-S", source, "-B", build, *cross, *options], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", build], check=True, capture_output=True)


def blocks(language: str) -> list[str]:
    """What the docs have in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(not shutil.which("cmake"), reason="cmake is not installed")
def test_the_cmake_files_of_the_docs_build(made: Path, tmp_path: Path) -> None:
    program, app = blocks("cmake")
    compiled = pconvgen.compile(pconvgen.load_model(small(), example=(torch.zeros(SHAPE),)), "android-arm64")
    # As the docs say: a program beside a bundle.
    there = tmp_path / "program"
    shutil.copytree(made / "bundle", there / "bundle")
    (there / "CMakeLists.txt").write_text(program)
    (there / "app.cc").write_text(blocks("cpp")[0])
    (there / "model.h").write_text(c_header(compiled.manifest, Path("model.so")))
    cmake(there, there / "build")
    assert read_elf(there / "build" / "app").needed >= {bundle.LIBRARY}
    # And a library of an app, in the folders that Android Studio packages.
    cpp, libraries = tmp_path / "app/src/main/cpp", tmp_path / "app/src/main/jniLibs/arm64-v8a"
    shutil.copytree(made / "bundle" / "lib", libraries)
    compiled.export(libraries / "libmodel.so")
    cpp.mkdir()
    shutil.copy(made / "bundle" / "include" / bundle.HEADER, cpp)
    (cpp / "libmodel.h").write_text(c_header(compiled.manifest, libraries / "libmodel.so"))
    (cpp / "CMakeLists.txt").write_text(app)
    call = "return pconvgen_run(pconvgen_load(path), libmodel_tensors, LIBMODEL_INPUTS, LIBMODEL_OUTPUTS, in, out);"
    (cpp / "app.cc").write_text(
        f'#include "libmodel.h"\nint run(const char* path, const void** in, void** out) {{ {call} }}\n'
    )
    cmake(cpp, tmp_path / "build", "-DANDROID_ABI=arm64-v8a")
    assert bundle.LIBRARY in read_elf(tmp_path / "build" / "libapp.so").needed
    (layout,) = re.findall(r"jniLibs/arm64-v8a/\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert set(layout.split()) == {"libmodel.so", bundle.LIBRARY, *ndk.SOURCES, ndk.STL}


def test_the_header_of_the_docs_is_what_is_written(made: Path) -> None:
    compiled = pconvgen.compile(pconvgen.load_model(small(), example=(torch.zeros(SHAPE),)), "cortex-a76")
    written = c_header(compiled.manifest, Path("model.so")).splitlines()
    (shown,) = blocks("c")
    assert [line for line in shown.splitlines() if line not in written] == []


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
