"""A bundle for this machine, a server of it, and compiled models, made once."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import Server, serving
from small import small

import pconvgen
from pconvgen.devices import Model, bundle


@pytest.fixture(scope="session")
def host_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for this machine."""
    if not shutil.which("c++"):
        pytest.skip("no C++ compiler makes the server")
    folder = tmp_path_factory.mktemp("bundle") / "host"
    bundle.build(bundle.flavor("host"), folder)
    return folder


@pytest.fixture
def server(host_bundle: Path, tmp_path: Path) -> Iterator[Server]:
    """A server on this machine with the key "me"."""
    with serving([host_bundle / bundle.START], tmp_path / "sessions") as running:
        yield running


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> pconvgen.CompiledModel:
    """A small network for this machine."""
    import torch
    from small import SHAPE

    model = pconvgen.compile(pconvgen.load_model(small(), example=(torch.zeros(SHAPE),)))
    model.export(tmp_path_factory.mktemp("compiled") / "small.so")
    return model


@pytest.fixture(scope="session")
def model(compiled: pconvgen.CompiledModel, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """It, as devices take it."""
    return compiled.manifest.model(compiled.export(tmp_path_factory.mktemp("library") / "small.so"))


@pytest.fixture
def bad(tmp_path: Path) -> Callable[[str], Model]:
    """Makes a library that does something bad when it is loaded."""

    def make(body: str) -> Model:
        source = "#include <signal.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n"
        source += f"__attribute__((constructor)) static void bad(void) {{ {body} }}"
        (tmp_path / "bad.c").write_text(source)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", "bad.so", "bad.c"], cwd=tmp_path, check=True)
        return Model(tmp_path / "bad.so", (), (), "host")

    return make
