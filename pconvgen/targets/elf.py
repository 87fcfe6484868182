"""As much of the ELF format as linking and loading need: an object's open symbols, a library's processor."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from pconvgen.errors import PconvgenError

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMBOL_TABLE = 2
_WEAK = 2
_MACHINES = {62: "x86_64", 183: "aarch64"}


def machine_of(path: Path) -> str:
    """The processor family that a file has code for, as `uname -m` names it.

    Raises
    ------
    PconvgenError: the file is not a 64-bit little-endian ELF file.
    """
    with path.open("rb") as file:
        header = _checked(path, file.read(_HEADER.size))
    number = _HEADER.unpack(header)[2]
    return _MACHINES.get(number, f"ELF machine {number}")


def _checked(path: str | Path, data: bytes) -> bytes:
    if data[:6] != b"\x7fELF\x02\x01" or len(data) < _HEADER.size:
        raise PconvgenError("not a file of a 64-bit ELF platform", file=path, found=repr(data[:6]))
    return data


def undefined_symbols(paths: Iterable[str | Path]) -> frozenset[str]:
    """Names that these object files refer to and none of them defines.

    Raises
    ------
    PconvgenError: a file is not a 64-bit little-endian ELF object, or is cut short.
    """
    needed: set[str] = set()
    defined: set[str] = set()
    for path in paths:
        data = _checked(path, Path(path).read_bytes())
        try:
            for name, is_defined, is_weak in _global_symbols(data):
                if is_defined:
                    defined.add(name)
                elif not is_weak:
                    needed.add(name)
        except (struct.error, IndexError, ValueError) as error:
            raise PconvgenError("damaged object file", file=path, found=error) from error
    return frozenset(needed - defined)


def _global_symbols(data: bytes) -> Iterator[tuple[str, bool, bool]]:
    """(name, whether it is defined here, whether it is weak) of each symbol that other files can see."""
    header = _HEADER.unpack_from(data)
    table_offset, entry_size, count = header[6], header[11], header[12]
    sections = [_SECTION.unpack_from(data, table_offset + index * entry_size) for index in range(count)]
    for _, kind, _, _, offset, size, link, *_ in sections:
        if kind != _SYMBOL_TABLE:
            continue
        strings = sections[link][4]
        for name, info, _, section, _, _ in _SYMBOL.iter_unpack(data[offset : offset + size]):
            if binding := info >> 4:
                start = strings + name
                yield data[start : data.index(b"\0", start)].decode(), section != 0, binding == _WEAK
