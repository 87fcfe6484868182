"""As much of the ELF format as linking and loading need: open symbols, objects of data, a library's processor.

pyelftools knows the format; it is imported where files are read, so that commands without any start at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pconvgen.errors import PconvgenError

if TYPE_CHECKING:
    from elftools.construct import Struct
    from elftools.elf.elffile import ELFFile
    from elftools.elf.structs import ELFStructs

_ALLOCATED = 2
_ALIGNED = 64
_MACHINES = {"EM_ARM": "armv7l", "EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}
# fmt: off
_SECTION = (
    "sh_name", "sh_type", "sh_flags", "sh_addr", "sh_offset", "sh_size",
    "sh_link", "sh_info", "sh_addralign", "sh_entsize",
)
# fmt: on


def machine_of(path: Path) -> str:
    """The processor family that a file has code for, as `uname -m` names it.

    Raises
    ------
    PconvgenError: the file is not a little-endian ELF file.
    """
    with path.open("rb") as file:
        machine = _read_header(file, path)["e_machine"]
    return _MACHINES.get(machine, f"ELF machine {machine}")


def check_whole(path: Path) -> None:
    """Raises PconvgenError when a library is cut short, which whoever loads it would not survive.

    Linkers write the table of sections last.
    """
    with path.open("rb") as file:
        elf = _read_header(file, path)
    size, expected = path.stat().st_size, elf["e_shoff"] + elf["e_shentsize"] * elf["e_shnum"]
    if size < expected:
        raise PconvgenError(
            "this library is cut short",
            file=path,
            found=f"{size} bytes",
            expected=f"{expected} bytes",
            remedy="copy the file again, or compile the model again",
        )


def _read_header(file: BinaryIO, path: str | Path) -> ELFFile:
    """A file with its header read; sections are read from it when they are asked for."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        elf = ELFFile(file)
    except ELFError:
        elf = None
    if elf is None or not elf.little_endian:
        file.seek(0)
        raise PconvgenError("not a file of a little-endian ELF platform", file=path, found=repr(file.read(6)))
    return elf


def undefined_symbols(paths: Iterable[str | Path]) -> frozenset[str]:
    """Names that these object files refer to and none of them defines.

    Raises
    ------
    PconvgenError: a file is not a little-endian ELF object, or is cut short.
    """
    from elftools.common.exceptions import ELFError
    from elftools.elf.sections import SymbolTableSection

    needed: set[str] = set()
    defined: set[str] = set()
    for path in paths:
        try:
            with Path(path).open("rb") as file:
                for section in _read_header(file, path).iter_sections("SHT_SYMTAB"):
                    assert isinstance(section, SymbolTableSection)
                    for symbol in section.iter_symbols():
                        binding = symbol["st_info"]["bind"]
                        if binding == "STB_LOCAL":
                            continue
                        if symbol["st_shndx"] != "SHN_UNDEF":
                            defined.add(symbol.name)
                        elif binding != "STB_WEAK":
                            needed.add(symbol.name)
        except (ELFError, AttributeError, LookupError, ValueError) as error:
            raise PconvgenError("damaged object file", file=path, found=error) from error
    return frozenset(needed - defined)


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
    elf = _read_header(BytesIO(like), "the kernels' object file")
    structs = elf.structs
    start = file.seek(structs.Elf_Ehdr.sizeof())
    for piece in pieces:
        file.write(piece)
    size = file.tell() - start
    texts = ["", ".rodata", ".symtab", ".strtab", ".note.GNU-stack", name]
    strings = b"".join(text.encode() + b"\0" for text in texts)
    places = [sum(len(text) + 1 for text in texts[:number]) for number in range(len(texts))]
    symbols = _symbol(structs) + _symbol(structs, places[5], "STB_GLOBAL", "STT_OBJECT", section=1, size=size)
    table = start + size + -size % _ALIGNED
    file.write(bytes(-size % _ALIGNED) + symbols + strings)
    ends = table + len(symbols), table + len(symbols) + len(strings)
    sections = [  # the fields of _SECTION
        (0, "SHT_NULL", 0, 0, 0, 0, 0, 0, 0, 0),
        (places[1], "SHT_PROGBITS", _ALLOCATED, 0, start, size, 0, 0, _ALIGNED, 0),
        (places[2], "SHT_SYMTAB", 0, 0, table, len(symbols), 3, 1, 8, structs.Elf_Sym.sizeof()),
        (places[3], "SHT_STRTAB", 0, 0, ends[0], len(strings), 0, 0, 1, 0),
        # Says that the stack holds no code.
        (places[4], "SHT_PROGBITS", 0, 0, ends[1], 0, 0, 0, 1, 0),
    ]
    begin = ends[1] + -ends[1] % 8
    file.write(bytes(-ends[1] % 8))
    for section in sections:
        file.write(_packed(structs.Elf_Shdr, **dict(zip(_SECTION, section, strict=True))))
    header: dict[str, Any] = {**elf.header, "e_shoff": begin, "e_shnum": len(sections), "e_shstrndx": 3}
    file.seek(0)
    file.write(_packed(structs.Elf_Ehdr, **header))


def _symbol(
    structs: ELFStructs,
    name: int = 0,
    binding: str = "STB_LOCAL",
    kind: str = "STT_NOTYPE",
    section: int = 0,
    size: int = 0,
) -> bytes:
    """A symbol at the beginning of a section."""
    from elftools.construct import Container

    info, other = Container(bind=binding, type=kind), Container(local=0, visibility="STV_DEFAULT")
    fields = {"st_name": name, "st_value": 0, "st_size": size, "st_shndx": section}
    return _packed(structs.Elf_Sym, st_info=info, st_other=other, **fields)


def _packed(struct: Struct, **fields: Any) -> bytes:
    """A structure as it lies in a file."""
    from elftools.construct import Container

    return struct.build(Container(**fields))
