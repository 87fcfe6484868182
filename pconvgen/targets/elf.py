"""As much of the ELF format as linking and loading need: an object's open symbols, a library's processor."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pconvgen.errors import PconvgenError


@dataclass(frozen=True)
class _Class:
    """The structures of one ELF class, whose fields have the same names and another order and size in the other.

    Attributes
    ----------
    header, section, symbol: their layouts.
    info, shndx: places of these fields in a symbol, whose first is the name.
    """

    header: struct.Struct
    section: struct.Struct
    symbol: struct.Struct
    info: int
    shndx: int


# By the fifth byte of a file: 32 and 64 bits. Headers and sections list the same fields in the same order.
_CLASSES = {
    1: _Class(struct.Struct("<16sHHIIIIIHHHHHH"), struct.Struct("<IIIIIIIIII"), struct.Struct("<IIIBBH"), 3, 5),
    2: _Class(struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQIIQQ"), struct.Struct("<IBBHQQ"), 1, 3),
}
_LITTLE_ENDIAN = 1
_SYMBOL_TABLE = 2
_WEAK = 2
_MACHINES = {40: "armv7l", 62: "x86_64", 183: "aarch64"}


def machine_of(path: Path) -> str:
    """The processor family that a file has code for, as `uname -m` names it.

    Raises
    ------
    PconvgenError: the file is not a little-endian ELF file.
    """
    with path.open("rb") as file:
        data = file.read(max(kind.header.size for kind in _CLASSES.values()))
    number = _class_of(path, data).header.unpack_from(data)[2]
    return _MACHINES.get(number, f"ELF machine {number}")


def check_whole(path: Path) -> None:
    """Raises PconvgenError when a library is cut short, which whoever loads it would not survive.

    Linkers write the table of sections last.
    """
    with path.open("rb") as file:
        data = file.read(max(kind.header.size for kind in _CLASSES.values()))
    header = _class_of(path, data).header.unpack_from(data)
    size, expected = path.stat().st_size, header[6] + header[11] * header[12]
    if size < expected:
        raise PconvgenError(
            "this library is cut short",
            file=path,
            found=f"{size} bytes",
            expected=f"{expected} bytes",
            remedy="copy the file again, or compile the model again",
        )


def _class_of(path: str | Path, data: bytes) -> _Class:
    kind = _CLASSES.get(data[4]) if data[:4] == b"\x7fELF" and data[5:6] == bytes([_LITTLE_ENDIAN]) else None
    if kind is None or len(data) < kind.header.size:
        raise PconvgenError("not a file of a little-endian ELF platform", file=path, found=repr(data[:6]))
    return kind


def undefined_symbols(paths: Iterable[str | Path]) -> frozenset[str]:
    """Names that these object files refer to and none of them defines.

    Raises
    ------
    PconvgenError: a file is not a little-endian ELF object, or is cut short.
    """
    needed: set[str] = set()
    defined: set[str] = set()
    for path in paths:
        data = Path(path).read_bytes()
        kind = _class_of(path, data)
        try:
            for name, is_defined, is_weak in _global_symbols(data, kind):
                if is_defined:
                    defined.add(name)
                elif not is_weak:
                    needed.add(name)
        except (struct.error, IndexError, ValueError) as error:
            raise PconvgenError("damaged object file", file=path, found=error) from error
    return frozenset(needed - defined)


def _global_symbols(data: bytes, kind: _Class) -> Iterator[tuple[str, bool, bool]]:
    """(name, whether it is defined here, whether it is weak) of each symbol that other files can see."""
    header = kind.header.unpack_from(data)
    table_offset, entry_size, count = header[6], header[11], header[12]
    sections = [kind.section.unpack_from(data, table_offset + index * entry_size) for index in range(count)]
    for _, type_, _, _, offset, size, link, *_ in sections:
        if type_ != _SYMBOL_TABLE:
            continue
        strings = sections[link][4]
        for symbol in kind.symbol.iter_unpack(data[offset : offset + size]):
            if binding := symbol[kind.info] >> 4:
                start = strings + symbol[0]
                name = data[start : data.index(b"\0", start)].decode()
                yield name, symbol[kind.shndx] != 0, binding == _WEAK
