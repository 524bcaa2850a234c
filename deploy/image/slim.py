"""Make the environment in a directory smaller: tests, C sources, type stubs and the parts of SciPy that nobody
imports go, libraries lose their symbol tables.

slim.py /opt/modelmeter. What is cut off a library is what only debuggers and linkers read: all behind the last byte
that the program headers load. The base image has no `strip`.
"""

import shutil
import struct
import sys
from pathlib import Path

_UNUSED = {".pyi", ".pxd", ".pyx", ".c", ".cpp", ".h", ".hpp", ".a", ".f90"}
SCIPY = {"special", "_lib", "_external", "constants"}
"""The packages of SciPy that `scipy.special` needs; a test holds modelmeter's imports to it."""
_LOAD = 1  # the type of a program header


def strip(path: Path) -> int:
    """Cut a 64-bit little-endian ELF library behind what is loaded; the bytes saved."""
    with path.open("r+b") as file:
        head = bytearray(file.read(64))
        if head[:6] != b"\x7fELF\x02\x01":
            return 0
        (table,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        end = table + size * count
        for index in range(count):
            file.seek(table + index * size)
            kind, _, offset, _, _, length = struct.unpack("<IIQQQQ", file.read(40))
            if kind == _LOAD:
                end = max(end, offset + length)
        saved: int = path.stat().st_size - end
        if saved <= 0:
            return 0
        struct.pack_into("<Q", head, 40, 0)  # no section headers any more
        struct.pack_into("<HH", head, 60, 0, 0)
        file.seek(0)
        file.write(head)
        file.truncate(end)
        return saved


def size_of(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())


def slim(root: Path) -> int:
    """The bytes saved."""
    saved = 0
    for scipy in root.glob("lib/python*/site-packages/scipy"):
        for folder in scipy.iterdir():
            if folder.is_dir() and folder.name not in SCIPY:
                saved += size_of(folder)
                shutil.rmtree(folder)
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_symlink():
            continue
        if path.is_dir() and path.name in {"tests", "test"} and "site-packages" in path.parts:
            saved += size_of(path)
            shutil.rmtree(path)
        elif path.is_file() and (
            path.suffix in _UNUSED or path.name.startswith("_cffi.")  # of zstandard, which has another
        ):
            saved += path.stat().st_size
            path.unlink()
        elif path.is_file() and ".so" in path.suffixes:
            saved += strip(path)
    return saved


if __name__ == "__main__":
    print(f"{slim(Path(sys.argv[1])) >> 20} MiB less")
