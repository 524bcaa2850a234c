"""Postgres inside: a real PostgreSQL 18 from a wheel, started, stopped and recovered by us.

After any kill of any of its processes, at any moment, the next start comes up with every committed row.
Two owners never share a data directory, and no file that is not ours is touched.
Two locks tell who lives: `lock` is held by the owner (us), `postmaster.lock` by every process of Postgres
itself, which inherits it: pids can be reused, files can be stale, a held lock is neither.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psycopg
from psycopg.conninfo import make_conninfo

from modelmeter.errors import Unavailable, WrongSetting
from modelmeter.store.embedded.child import FAST_SECONDS, IMMEDIATE_SECONDS, Child
from modelmeter.store.embedded.install import MAJOR, reachable_install
from modelmeter.store.embedded.machine import MEBIBYTE, memory_bytes, processes, send, shared_buffers_mebibytes
from modelmeter.store.embedded.user import User, blocking_dir, choose_user, environment

DATABASE = "modelmeter"
LOG_LIMIT_BYTES = 10 * MEBIBYTE
_OUR_FILES = frozenset(
    {"lock", "postmaster.lock", "socket", "postgres.log", "postgres.log.1", "postgres.new", "lost+found"}
)
_SOCKET_DIR = re.compile(r"/(?:[^/]+/)*modelmeter-[0-9a-f]{12}")
_SOCKET = ".s.PGSQL.5432"
_POLL_SECONDS = 0.005
_ANSWER_SECONDS = 60  # from the start of the process until it says anything at all; recovery may take longer
_ORPHAN_SECONDS = 1  # a backend without a postmaster leaves by itself, unless it computes


class EmbeddedPostgres:
    """One PostgreSQL in `data_dir`, alive between `start` and `stop`. Safe to use from several threads.

    WrongSetting: the directory, its version or its rights cannot work. Unavailable: Postgres did not come up.
    On Linux it also stops, cleanly, when this process is killed; elsewhere the next start sees to that.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.expanduser().resolve()
        self.conninfo = ""
        self._cluster_dir = self.data_dir / "postgres"
        self._mutex = threading.RLock()
        self._stopping = False
        self._owner_lock: int | None = None
        self._child: Child | None = None
        self._socket_dir = Path()
        self._install = Path()
        self._user = User("", 0, 0)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> str:
        """Bring Postgres up, making or recovering its data first; gives the conninfo of the database."""
        with self._mutex:
            if self._child is not None:
                return self.conninfo
            self._stopping = False
            try:
                self._prepare()
                self._launch()
            except OSError as error:
                self._release()
                raise WrongSetting(f"the embedded Postgres cannot run in {self.data_dir}: {error}") from error
            except BaseException:
                self._release()
                raise
            return self.conninfo

    def stop(self) -> None:
        """Fast shutdown: sessions are cut, what is committed is on disk. Waits until all of it is gone."""
        self._stopping = True
        with self._mutex:
            self._release()

    def ensure_running(self) -> bool:
        """Restart Postgres if it died or its socket vanished; True when it had to. `conninfo` stays the same.

        Unavailable when it does not come up; call again. Between `stop` and `start` it does nothing.
        """
        with self._mutex:
            if self._child is None:
                return False
            self._bound_log()
            if self._child.is_alive() and (self._socket_dir / _SOCKET).exists():
                return False
            self._child.stop()
            try:
                self._launch()
            except OSError as error:
                raise Unavailable(f"the embedded Postgres cannot restart: {error}") from error
            return True

    # --- before the start: the directory, its user, its binaries ---

    def _prepare(self) -> None:
        self._refuse_what_is_not_ours()
        self._user = choose_user(self._cluster_dir)
        if os.geteuid() == 0:
            blocking = blocking_dir(self._user, self.data_dir)
            if blocking is not None:
                raise WrongSetting(
                    f"Postgres does not run as root but as user {self._user.name}, who cannot pass "
                    f"{blocking} to reach the data directory {self.data_dir}; take another, "
                    "such as --data-dir /var/lib/modelmeter"
                )
        self._make_data_dir()
        self._owner_lock = self._take_owner_lock()
        self._install = reachable_install(self._user)
        if not self._cluster_dir.exists():
            self._make_cluster()
        self._remove_socket_dir()
        self._socket_dir = self._make_socket_dir()
        self.conninfo = _conninfo(self._socket_dir)

    def _refuse_what_is_not_ours(self) -> None:
        """Reads only: a refused directory is left untouched."""
        if not self.data_dir.exists():
            return
        if not self.data_dir.is_dir():
            raise WrongSetting(f"the data directory {self.data_dir} is no directory")
        for directory in (self.data_dir, self._cluster_dir):
            version = _cluster_version(directory)
            if version is not None and version != MAJOR:
                raise WrongSetting(
                    f"{directory} holds data of PostgreSQL {version}; this release carries {MAJOR}; "
                    f"dump it with the release that wrote it (pg_dump of PostgreSQL {version}), start this "
                    "one on a new --data-dir, and restore the dump there"
                )
        if self._cluster_dir.exists():
            if _cluster_version(self._cluster_dir) is None:
                raise WrongSetting(f"{self._cluster_dir} is damaged: it has no readable PG_VERSION")
            return
        foreign = sorted({entry.name for entry in self.data_dir.iterdir()} - _OUR_FILES)
        if foreign:
            raise WrongSetting(
                f"the data directory {self.data_dir} is not empty and not modelmeter's (it holds "
                f"{', '.join(foreign[:3])}); name an empty one with --data-dir"
            )

    def _make_data_dir(self) -> None:
        missing = [parent for parent in self.data_dir.parents if not parent.exists()]
        for parent in reversed(missing):
            parent.mkdir(exist_ok=True)
            if os.geteuid() == 0:
                parent.chmod(0o755)  # whatever root's umask, Postgres' user must pass
        if not self.data_dir.exists():
            self.data_dir.mkdir(mode=0o700, exist_ok=True)
        self._give_away(self.data_dir)
        if os.geteuid() == 0 and self._cluster_dir.exists() and self._cluster_dir.stat().st_uid == 0:
            for folder, directories, files in os.walk(self._cluster_dir):  # a backup that root restored
                for name in (".", *directories, *files):
                    os.chown(Path(folder, name), self._user.uid, self._user.gid, follow_symlinks=False)

    def _give_away(self, path: Path) -> None:
        if os.geteuid() == 0 and path.stat().st_uid != self._user.uid:
            os.chown(path, self._user.uid, self._user.gid)

    def _take_owner_lock(self) -> int:
        descriptor = _open_plain(self.data_dir / "lock", os.O_RDWR, self._user)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise WrongSetting(
                f"the data directory {self.data_dir} is in use by another modelmeter, pid {holder}"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    def _make_cluster(self) -> None:
        """Run initdb beside the final place and rename: a kill on the way leaves nothing that looks whole."""
        lock = self._take_postmaster_lock()
        new = self.data_dir / "postgres.new"
        try:
            shutil.rmtree(new, ignore_errors=True)
            argv = [str(self._install / "bin" / "initdb"), "-D", str(new), "--username", DATABASE]
            argv += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            argv += ["--data-checksums", "--auth-local=trust", "--auth-host=reject", "--no-instructions"]
            with self._open_log() as log:
                child = Child(argv, self._user, signal.SIGKILL, log=log, lock=lock)
            child.join()
            if child.returncode != 0:
                raise Unavailable(f"initdb failed:\n{self._log_tail()}")
            new.rename(self._cluster_dir)
            _sync_dir(self.data_dir)
        finally:
            os.close(lock)

    def _make_socket_dir(self) -> Path:
        """Not in the data directory: the path of a Unix socket may have at most 103 to 107 bytes."""
        base = Path("/tmp")  # noqa: S108  # the name is random and mkdir refuses what exists
        if not os.access(base, os.W_OK | os.X_OK):
            base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
        directory = base.resolve() / f"modelmeter-{secrets.token_hex(6)}"
        record = _open_plain(self.data_dir / "socket", os.O_WRONLY | os.O_TRUNC, self._user)
        with os.fdopen(record, "w") as file:
            file.write(str(directory))
        return directory

    def _remove_socket_dir(self) -> None:
        """Remove the one of the last start. Its record lies in a directory that Postgres' user may write."""
        with contextlib.suppress(OSError, UnicodeDecodeError, ValueError):
            record = os.fdopen(_open_plain(self.data_dir / "socket", os.O_RDONLY, self._user))
            with record:
                text = record.read(4096)
            if not _SOCKET_DIR.fullmatch(text):
                return
            directory = Path(text)
            facts = directory.lstat()
            if stat.S_ISDIR(facts.st_mode) and facts.st_uid == self._user.uid:
                for name in (_SOCKET, f"{_SOCKET}.lock"):
                    (directory / name).unlink(missing_ok=True)
                directory.rmdir()

    # --- the process ---

    def _launch(self) -> None:
        lock = self._take_postmaster_lock()
        try:
            self._remove_pid_file()
            with contextlib.suppress(FileExistsError):
                self._socket_dir.mkdir(mode=0o700)
            self._give_away(self._socket_dir)
            self._bound_log()
            postgres = str(self._install / "bin" / "postgres")
            argv = [postgres, "-D", str(self._cluster_dir)]
            for name, value in self._settings().items():
                argv += ["-c", f"{name}={value}"]
            with self._open_log() as log:
                self._child = Child(argv, self._user, signal.SIGINT, log=log, lock=lock)
        finally:
            os.close(lock)  # ours; the child has its own, on the same lock
        self._wait_until_ready(self._child)

    def _wait_until_ready(self, child: "Child") -> None:
        admin = make_conninfo(self.conninfo, dbname="postgres", connect_timeout=5)
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            if not child.is_alive():
                raise Unavailable(
                    f"the embedded Postgres in {self.data_dir} ended at once (status {child.returncode}):\n"
                    f"{self._log_tail()}"
                )
            if self._stopping:
                raise Unavailable("the embedded Postgres is being stopped")
            answer = psycopg.pq.PGconn.ping(admin.encode())
            if answer == psycopg.pq.Ping.OK:
                break
            if answer == psycopg.pq.Ping.REJECT:  # it recovers, and is done when it is done
                deadline = time.monotonic() + _ANSWER_SECONDS
            if time.monotonic() > deadline:
                raise Unavailable(f"the embedded Postgres does not answer:\n{self._log_tail()}")
            child.join(_POLL_SECONDS)
        try:
            with psycopg.connect(admin, autocommit=True) as connection:
                query = "SELECT FROM pg_database WHERE datname = %s"
                if connection.execute(query, [DATABASE]).rowcount == 0:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.Error as error:
            raise Unavailable(f"the embedded Postgres is not usable: {error}\n{self._log_tail()}") from error

    def _release(self) -> None:
        try:
            if self._child is not None:
                self._child.stop()
                self._child = None
                os.close(self._take_postmaster_lock())  # no backend that was stuck outlives us either
        finally:
            if self._owner_lock is not None:
                self._remove_socket_dir()
                os.close(self._owner_lock)
                self._owner_lock = None

    def _take_postmaster_lock(self) -> int:
        """The lock that all processes of Postgres inherit. Ends those of a former run, or waits for them."""
        descriptor = _open_plain(self.data_dir / "postmaster.lock", os.O_RDWR, self._user)
        begin = time.monotonic()
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            waited = time.monotonic() - begin
            if waited > FAST_SECONDS + 2 * IMMEDIATE_SECONDS:
                os.close(descriptor)
                raise WrongSetting(
                    f"processes of a Postgres that this one cannot see or end still use {self.data_dir}; "
                    "does it run in another container on the same volume?"
                )
            self._end_leftovers(waited)
            time.sleep(_POLL_SECONDS * 4)

    def _end_leftovers(self, waited: float) -> None:
        """Signal what still lives of a former run, harder the longer it takes."""
        masters, children = self._leftovers()
        if masters:
            # Sending a fast shutdown again does nothing. One that is suspended must wake up to notice it.
            number = signal.SIGINT
            if waited > FAST_SECONDS:
                number = signal.SIGQUIT if waited < FAST_SECONDS + IMMEDIATE_SECONDS else signal.SIGKILL
            send(masters, number)
            send(masters, signal.SIGCONT)
        elif waited > _ORPHAN_SECONDS:
            send(children, signal.SIGKILL)

    def _leftovers(self) -> tuple[list[int], list[int]]:
        """The pids of postmasters (and initdb) on our directory, and of their children."""
        title = f"postgres: {self._cluster_name()}: "
        options = tuple(f" -D {self.data_dir}/{name} " for name in ("postgres", "postgres.new"))
        ours = [(pid, f"{command} ") for pid, uid, command in processes() if uid == self._user.uid]
        masters = [pid for pid, command in ours if any(option in command for option in options)]
        return masters, [pid for pid, command in ours if command.startswith(title)]

    def _remove_pid_file(self) -> None:
        """Nobody of our last run lives, so what it says is stale, unless somebody else started a server."""
        path = self._cluster_dir / "postmaster.pid"
        if path.exists():
            masters, _ = self._leftovers()
            if masters:
                raise WrongSetting(
                    f"a PostgreSQL that modelmeter did not start, pid {masters[0]}, uses "
                    f"{self._cluster_dir}; stop it first"
                )
            path.unlink()

    def _cluster_name(self) -> str:
        """Stands in the title of every process of Postgres. By inode: it follows a directory that moves."""
        facts = self.data_dir.stat()
        return f"modelmeter-{facts.st_dev:x}-{facts.st_ino:x}"

    def _settings(self) -> dict[str, str]:
        """For a metrics server on a small machine: steady writes in few transactions, short reads."""
        lz4 = [str(self._install / "bin" / "postgres"), "-C", "wal_compression", "-c", "wal_compression=lz4"]
        lz4_known = subprocess.run(
            [*lz4, "-D", str(self._cluster_dir)], env=environment(), check=False, capture_output=True
        )
        return {
            # who may come: whoever passes the socket directory, which is 0700
            "listen_addresses": "",
            "port": "5432",  # only names the socket
            "unix_socket_directories": str(self._socket_dir),
            "unix_socket_permissions": "0700",
            "cluster_name": self._cluster_name(),
            "max_connections": "100",
            # what is acknowledged is durable
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "wal_level": "replica",  # pg_basebackup works on it
            # memory: ours is a small part, the system's page cache is the large one
            "shared_buffers": f"{shared_buffers_mebibytes(memory_bytes())}MB",
            "max_locks_per_transaction": "256",  # a query may touch many partitions, each with its indexes
            # fewer checkpoints, each spread out: a page is logged in full only once between two of them
            "max_wal_size": "4GB",
            "min_wal_size": "512MB",  # segments are reused, not made anew
            "checkpoint_timeout": "15min",
            "checkpoint_completion_target": "0.9",
            # full pages shrink for little CPU with lz4; pglz costs more than it saves on packed columns
            "wal_compression": "lz4" if lz4_known.returncode == 0 else "off",
            # CPU and processes
            "jit": "off",  # our queries are short
            "io_method": "sync",  # `worker` keeps three more processes, for reads that the page cache serves
            "max_logical_replication_workers": "0",  # no launcher process for what nobody uses
            "autovacuum_naptime": "10s",  # the queue's table dies as fast as it grows
            "track_io_timing": "off",  # two clock reads for each page
            # the log is for what went wrong
            "log_destination": "stderr",
            "logging_collector": "off",
            "log_min_messages": "warning",
            "log_checkpoints": "off",
            "log_line_prefix": "%m [%p] ",
            "log_timezone": "UTC",
            "timezone": "UTC",
            "lc_messages": "C",
        }

    # --- the log ---

    def _open_log(self) -> IO[bytes]:
        path = self.data_dir / "postgres.log"
        return os.fdopen(_open_plain(path, os.O_WRONLY | os.O_APPEND, self._user), "ab")

    def _bound_log(self) -> None:
        """Keep the last full log and begin anew. Postgres goes on in the same file: it appends."""
        path = self.data_dir / "postgres.log"
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_size > LOG_LIMIT_BYTES:
                kept = self.data_dir / "postgres.log.1"
                kept.unlink(missing_ok=True)
                source = _open_plain(path, os.O_RDWR, self._user)
                target = _open_plain(kept, os.O_WRONLY, self._user)
                with os.fdopen(source, "rb") as old, os.fdopen(target, "wb") as new:
                    old.seek(-LOG_LIMIT_BYTES, os.SEEK_END)
                    shutil.copyfileobj(old, new)
                    os.ftruncate(old.fileno(), 0)

    def _log_tail(self) -> str:
        path = self.data_dir / "postgres.log"
        try:
            with os.fdopen(_open_plain(path, os.O_RDONLY, self._user), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError as error:
            return f"({path} is not readable: {error})"
        return "\n".join([*lines[-15:], f"({path})"])


def running_conninfo(data_dir: Path) -> str | None:
    """How to reach the Postgres that a `serve` runs on this data directory; None when none does that we may see."""
    try:
        lines = (data_dir / "postgres" / "postmaster.pid").read_text("utf-8").splitlines()
        socket_dir = Path(lines[4])
        return _conninfo(socket_dir) if (socket_dir / _SOCKET).exists() else None
    except (OSError, IndexError, UnicodeDecodeError):
        return None


def _conninfo(socket_dir: Path) -> str:
    return make_conninfo(host=str(socket_dir), port=5432, user=DATABASE, dbname=DATABASE, sslmode="disable")


def _open_plain(path: Path, flags: int, user: User) -> int:
    """Open a file of the data directory; made if need be, for Postgres' user; never through a symlink."""
    mode = 0 if flags & (os.O_WRONLY | os.O_RDWR) == 0 else os.O_CREAT
    descriptor = os.open(path, flags | mode | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    if mode and os.geteuid() == 0:
        os.fchown(descriptor, user.uid, user.gid)
    return descriptor


def _sync_dir(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cluster_version(directory: Path) -> str | None:
    try:
        text = (directory / "PG_VERSION").read_text().strip()
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None
    return text if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else None
