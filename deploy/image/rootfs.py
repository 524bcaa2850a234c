"""Lay out the file system of an image that holds Python, what it needs, and nothing else: no shell, no packages.

rootfs.py /rootfs /opt/modelmeter. Takes the interpreter that runs this, its standard library, every shared library
that it, its modules and those of the environment in the second argument load, certificates and time zones.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

_LEFT_OUT = frozenset((
    "__pycache__", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "dist-packages", "test", "tests",
    "tkinter", "turtledemo",
))  # fmt: skip
_DATA = ("/etc/ssl/certs/ca-certificates.crt", "/usr/share/zoneinfo", "/etc/nsswitch.conf", "/etc/ld.so.cache")
_USER = "modelmeter:x:10001:10001::/tmp:/sbin/nologin"


def _is_left_out(name: str) -> bool:
    return name in _LEFT_OUT or name.startswith("config-")


def _ignored(*, whole: bool) -> Callable[[str, list[str]], set[str]]:
    return lambda _, names: set() if whole else {name for name in names if _is_left_out(name)}


def put(path: Path, rootfs: Path, *, whole: bool = True) -> None:
    """A file or folder and, when it is a link, what it leads to; folders on the way that are links become links."""
    for parent in [*reversed(path.parents)][1:]:
        there = rootfs / parent.relative_to("/")
        if parent.is_symlink():
            put_link(parent, rootfs)
        elif not there.exists():
            there.mkdir()
    there = rootfs / path.relative_to("/")
    if path.is_symlink():
        put_link(path, rootfs)
    elif path.is_dir():
        shutil.copytree(path, there, symlinks=True, dirs_exist_ok=True, ignore=_ignored(whole=whole))
    elif not there.exists():
        shutil.copy2(path, there)


def put_link(path: Path, rootfs: Path) -> None:
    there = rootfs / path.relative_to("/")
    if not there.is_symlink():
        there.parent.mkdir(parents=True, exist_ok=True)
        there.symlink_to(path.readlink())
    target = path.parent / path.readlink()
    if target.is_dir() and not target.is_symlink():
        (rootfs / target.resolve().relative_to("/")).mkdir(parents=True, exist_ok=True)
    else:
        put(target.parent.resolve() / target.name, rootfs)


def libraries(*files: Path) -> set[Path]:
    """What the dynamic linker finds for these files, itself among them. One that comes with them need not be found:
    who loads it has loaded that before.
    """
    found: set[Path] = set()
    for start in range(0, len(files), 100):
        batch = [str(file) for file in files[start : start + 100]]
        said = subprocess.run(["ldd", *batch], capture_output=True, text=True, check=False).stdout
        missing = {*re.findall(r"(\S+) => not found", said)} - {file.name for file in files}
        if missing:
            raise SystemExit(f"no library {', '.join(sorted(missing))}")
        found |= {Path(one) for one in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", said, re.MULTILINE)}
    return found


def shared(root: Path) -> list[Path]:
    return [path for path in sorted(root.rglob("*.so*")) if path.is_file() and not path.is_symlink()]


def lay_out(rootfs: Path, environment: Path) -> None:
    rootfs.mkdir(parents=True)
    python = Path(sys.executable)
    stdlib = Path(sysconfig.get_path("stdlib"))
    for one in (python, *(environment / "bin").glob("python*")):
        target = one.readlink() if one.is_symlink() else one
        if target.is_absolute() and environment not in target.parents:
            put(target, rootfs)
    put(python, rootfs)
    put(stdlib, rootfs, whole=False)
    modules = [path for path in shared(stdlib) if not any(map(_is_left_out, path.parts))]
    for library in sorted(libraries(python, *modules, *shared(environment))):
        if environment not in library.parents:
            put(library, rootfs)
    for path in map(Path, _DATA):
        if path.exists():
            put(path, rootfs)
    put(environment, rootfs)
    (rootfs / "etc").mkdir(exist_ok=True)
    (rootfs / "etc/passwd").write_text(f"root:x:0:0:root:/root:/sbin/nologin\n{_USER}\n")
    (rootfs / "etc/group").write_text("root:x:0:\nmodelmeter:x:10001:\n")
    (rootfs / "tmp").mkdir(exist_ok=True)
    (rootfs / "tmp").chmod(0o1777)


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]), Path(sys.argv[2]).resolve())
