"""A C header that describes a compiled library: names, shapes and types of what goes in and out."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from pconvgen.devices.container import dlpack_type
from pconvgen.manifest import Manifest


def c_header(manifest: Manifest, library: Path) -> str:
    """The text of the header for a library, whose name becomes the prefix of all that it defines.

    `pconvgen_tensor` is of pconvgen.h, which a bundle has in include/ (`pconvgen runtime build`).
    """
    prefix = _identifier(library.stem)
    upper = prefix.upper()
    tensors = [*manifest.inputs, *manifest.outputs]
    lines = [
        f"/* {library.name}: written by pconvgen {manifest.versions.get('pconvgen', '')} for {manifest.target}.",
        " * Tensors lie dense in memory, the last dimension fastest; inputs come before outputs. */",
        f"#ifndef {upper}_H",
        f"#define {upper}_H",
        "",
        '#include "pconvgen.h"',
        "",
        f"enum {{ {upper}_INPUTS = {len(manifest.inputs)}, {upper}_OUTPUTS = {len(manifest.outputs)} }};",
        "",
    ]
    rows = []
    for number, (name, shape, dtype) in enumerate(tensors):
        # C has no arrays without elements.
        extents = ", ".join(map(str, shape)) or "1"
        side = "INPUT" if number < len(manifest.inputs) else "OUTPUT"
        own = f"{upper}_{side}_{number if side == 'INPUT' else number - len(manifest.inputs)}"
        code, bits = dlpack_type(np.dtype(dtype))
        lines += [
            f"/* {_comment(name)}: {dtype} {'x'.join(map(str, shape)) or 'scalar'} */",
            f"enum {{ {own}_ELEMENTS = {math.prod(shape)} }};",
            f"static const int64_t {prefix}_shape_{number}[] = {{{extents}}};",
        ]
        rows.append(f'  {{"{_comment(name)}", {code}, {bits}, {len(shape)}, {prefix}_shape_{number}}},')
    lines += ["", f"static const pconvgen_tensor {prefix}_tensors[] = {{", *rows, "};", "", "#endif", ""]
    return "\n".join(lines)


def _identifier(name: str) -> str:
    found = re.sub(r"\W", "_", name, flags=re.ASCII)
    return found if found[:1].isalpha() else f"model_{found}"


def _comment(name: str) -> str:
    """A name that ends no comment and no string."""
    return re.sub(r"[^\w.:-]", "_", name, flags=re.ASCII)
