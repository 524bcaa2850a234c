"""Whom Postgres runs as: never root."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from modelmeter.errors import WrongSetting


@dataclass(frozen=True)
class User:
    """Whom Postgres runs as."""

    name: str
    uid: int
    gid: int


def environment() -> dict[str, str]:
    """As little as possible: no PG variables, which change defaults, and none of our secrets."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def choose_user(cluster_dir: Path) -> User:
    """Postgres refuses to run as root. Existing data stays with its owner."""
    owner = cluster_dir.stat().st_uid if cluster_dir.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner != os.geteuid():
            raise WrongSetting(f"{cluster_dir} belongs to {user_name(owner)}: run as that user, or as root")
        return User(user_name(os.geteuid()), os.geteuid(), os.getegid())
    if owner:
        return User(user_name(owner), owner, cluster_dir.stat().st_gid)
    found = _find_user("modelmeter")
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin")
    if found is None and useradd is not None:
        argv = [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
        argv += ["--shell", "/bin/false", "modelmeter"]
        subprocess.run(argv, check=False, capture_output=True)  # it may lose a race, or /etc be read-only
        found = _find_user("modelmeter")
    found = found or _find_user("postgres") or _find_user("nobody")
    if found is None:
        raise WrongSetting("Postgres does not run as root, and there is no user modelmeter, postgres or nobody")
    return found


def _find_user(name: str) -> User | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return User(name, entry.pw_uid, entry.pw_gid) if entry.pw_uid else None


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def blocking_dir(user: User, target: Path) -> Path | None:
    """The topmost directory on the way to `target` that `user` cannot pass. Tried out: there are ACLs."""
    way = [str(path) for path in reversed([target, *target.parents]) if path.exists()]
    if way[-1] == str(target):
        way.pop()  # the data directory itself is given to the user
    script = 'for way; do cd "$way" 2>/dev/null || { printf %s "$way"; exit 1; }; done'
    answer = run_as(user, ["/bin/sh", "-c", script, "sh", *way])
    return Path(answer.stdout.decode()) if answer.returncode == 1 else None


def run_as(user: User, argv: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        argv,
        check=False,
        capture_output=True,
        cwd="/",
        env=environment(),
        stdin=subprocess.DEVNULL,
        user=user.uid,
        group=user.gid,
        extra_groups=[],
    )
