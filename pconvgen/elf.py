"""As much of the ELF format as linking and loading need: open symbols, objects of data, a library's processor."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO

from pconvgen.errors import PconvgenError


@dataclass(frozen=True)
class _Class:
    """The structures of one ELF class, whose fields have the same names and another order and size in the other.

    Attributes
    ----------
    header, section, symbol: their layouts.
    info, shndx, size: places of these fields in a symbol, whose first is the name.
    """

    header: struct.Struct
    section: struct.Struct
    symbol: struct.Struct
    info: int
    shndx: int
    size: int


# By the fifth byte of a file: 32 and 64 bits. Headers and sections list the same fields in the same order.
_CLASSES = {
    1: _Class(struct.Struct("<16sHHIIIIIHHHHHH"), struct.Struct("<IIIIIIIIII"), struct.Struct("<IIIBBH"), 3, 5, 2),
    2: _Class(struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQIIQQ"), struct.Struct("<IBBHQQ"), 1, 3, 5),
}
_LONGEST = max(kind.header.size for kind in _CLASSES.values())
_LITTLE_ENDIAN = 1
_PROGRAM_BITS, _SYMBOL_TABLE, _STRING_TABLE = 1, 2, 3
_ALLOCATED = 2
_GLOBAL_OBJECT = 1 << 4 | 1
_ALIGNED = 64
_WEAK = 2
_MACHINES = {40: "armv7l", 62: "x86_64", 183: "aarch64"}


def machine_of(path: Path) -> str:
    """The processor family that a file has code for, as `uname -m` names it.

    Raises
    ------
    PconvgenError: the file is not a little-endian ELF file.
    """
    with path.open("rb") as file:
        data = file.read(_LONGEST)
    number = _class_of(path, data).header.unpack_from(data)[2]
    return _MACHINES.get(number, f"ELF machine {number}")


def check_whole(path: Path) -> None:
    """Raises PconvgenError when a library is cut short, which whoever loads it would not survive.

    Linkers write the table of sections last.
    """
    with path.open("rb") as file:
        data = file.read(_LONGEST)
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
        try:
            # Not read: one of the files holds a network's weights.
            with Path(path).open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
                for name, is_defined, is_weak in _global_symbols(data, _class_of(path, data[:_LONGEST])):
                    if is_defined:
                        defined.add(name)
                    elif not is_weak:
                        needed.add(name)
        except (struct.error, IndexError, ValueError) as error:
            raise PconvgenError("damaged object file", file=path, found=error) from error
    return frozenset(needed - defined)


def _global_symbols(data: mmap, kind: _Class) -> Iterator[tuple[str, bool, bool]]:
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
                name = data[start : data.find(b"\0", start)].decode()
                yield name, symbol[kind.shndx] != 0, binding == _WEAK


def write_data_object(file: BinaryIO, like: bytes, name: str, pieces: Iterable[Any]) -> None:
    """Writes an object file that defines one symbol, of read-only data.

    Parameters
    ----------
    file: open for writing, at its beginning.
    like: an object file for the same machine.
    name: of the symbol.
    pieces: buffers whose bytes, one after the other, are the data.

    Raises
    ------
    PconvgenError: `like` is not a little-endian ELF object.
    """
    kind = _class_of("the kernels' object file", like)
    start = file.seek(kind.header.size)
    for piece in pieces:
        file.write(piece)
    size = file.tell() - start
    texts = ["", ".rodata", ".symtab", ".strtab", ".note.GNU-stack", name]
    strings = b"".join(text.encode() + b"\0" for text in texts)
    places = [sum(len(text) + 1 for text in texts[:number]) for number in range(len(texts))]
    symbols = _symbol(kind) + _symbol(kind, name=places[5], info=_GLOBAL_OBJECT, shndx=1, size=size)
    table = start + size + -size % _ALIGNED
    file.write(bytes(-size % _ALIGNED) + symbols + strings)
    ends = table + len(symbols), table + len(symbols) + len(strings)
    # Name, type, flags, address, offset, size, link, info, alignment, size of an entry.
    sections = [
        (0,) * 10,
        (places[1], _PROGRAM_BITS, _ALLOCATED, 0, start, size, 0, 0, _ALIGNED, 0),
        (places[2], _SYMBOL_TABLE, 0, 0, table, len(symbols), 3, 1, 8, kind.symbol.size),
        (places[3], _STRING_TABLE, 0, 0, ends[0], len(strings), 0, 0, 1, 0),
        # Says that the stack holds no code.
        (places[4], _PROGRAM_BITS, 0, 0, ends[1], 0, 0, 0, 1, 0),
    ]
    begin = ends[1] + -ends[1] % 8
    file.write(bytes(-ends[1] % 8) + b"".join(kind.section.pack(*section) for section in sections))
    fields = list(kind.header.unpack_from(like))
    fields[6], fields[12], fields[13] = begin, len(sections), 3
    file.seek(0)
    file.write(kind.header.pack(*fields))


def _symbol(kind: _Class, *, name: int = 0, info: int = 0, shndx: int = 0, size: int = 0) -> bytes:
    """A symbol at the beginning of a section."""
    fields = [0] * 6
    fields[0], fields[kind.info], fields[kind.shndx] = name, info, shndx
    fields[kind.size] = size
    return kind.symbol.pack(*fields)
