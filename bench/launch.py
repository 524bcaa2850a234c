"""Processes that are always ended, on an error and on Ctrl-C too: modelmeter with its Postgres, and peers."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg

from bench.client import HOST, BenchError, Connection
from bench.usage import Usage, read_usage
from modelmeter.errors import ModelmeterError
from modelmeter.store.embedded import EmbeddedPostgres

# Tables that hold what was stored, by prefix. The queue is not one: it is empty when all is stored.
_STORED = "^(chunk|rollup|stream|series|metric|ledger)"


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A fresh directory that other users can reach: as root, the embedded Postgres runs as another one."""
    folder = Path(tempfile.mkdtemp(prefix="modelmeter-bench-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def started(command: list[str], log: Path, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process group of its own, its output in `log`; SIGTERM at the end, SIGKILL after 30 s."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **environment},
        )
    try:
        yield process
    finally:
        end(process)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process of `started` and all of its group. Nothing happens the second time."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            print(f"bench: {process.args!r} did not end within 30 s of SIGTERM; killed", file=sys.stderr)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait_until(
    ready: Callable[[], bool], what: str, *, seconds: float, step: float = 0.05, log: Path | None = None
) -> None:
    """Asks `ready` until it is true. BenchError, with the end of the log, after `seconds`."""
    limit = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > limit:
            tail = log.read_text(errors="replace")[-3000:] if log else ""
            raise BenchError(f"{what}: not within {seconds:g} s\n{tail}".rstrip())
        time.sleep(step)


def answers(port: int, path: str, status: int = 200) -> bool:
    """Whether GET `path` gives `status`."""
    connection = Connection(port, timeout_seconds=5)
    try:
        return connection.get(path).status == status
    except OSError:
        return False
    finally:
        connection.close()


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[tuple[str, int]]:
    """The embedded Postgres in a fresh `folder`/data: its conninfo and the pid of its postmaster."""
    embedded = EmbeddedPostgres(folder / "data")
    try:
        conninfo = embedded.start()
    except ModelmeterError as error:
        raise BenchError(error.detail) from error
    try:
        pid_file = next((folder / "data").rglob("postmaster.pid"))
        yield conninfo, int(pid_file.read_text().splitlines()[0])
    finally:
        embedded.stop()


class Server:
    """A running `modelmeter serve` on a Postgres that is all its own."""

    def __init__(self, port: int, conninfo: str, roots: dict[int, str], log: Path) -> None:
        self.port = port
        self.conninfo = conninfo
        self.roots = roots
        self.log = log
        self._connection = Connection(port)

    def usage(self) -> Usage:
        return read_usage(self.roots)

    def event_count(self) -> int:
        """Events that GET /stats knows: those that are queryable."""
        answer = self._connection.get("/stats")
        if answer.status != 200:
            raise BenchError(f"GET /stats: {answer.status} {answer.body[:600].decode(errors='replace')}")
        return sum(model["events"] for model in answer.json()["models"])

    def wait_queryable(self, events: int, *, stalled_seconds: float = 60) -> float:
        """The monotonic time at which all `events` were seen. BenchError when the count stalls or exceeds."""
        best, grew_at = -1, time.monotonic()
        while True:
            asked_at = time.monotonic()
            count = self.event_count()
            now = time.monotonic()
            if count == events:
                return now
            if count > events:
                raise BenchError(f"{count} events are queryable, only {events} were acknowledged")
            if count > best:
                best, grew_at = count, now
            elif now - grew_at > stalled_seconds:
                raise BenchError(f"{count} events are queryable, {events} were acknowledged\n{self._log_tail()}")
            time.sleep(max(0.05, 5 * (now - asked_at)))

    def wait_compacted(self, *, seconds: float, quiet_seconds: float = 35) -> bool:
        """Waits until the stored tables stay the same for `quiet_seconds`; False when `seconds` did not do.

        The compactor leaves windows alone until they are closed, so the minute in hand must end first.
        """
        limit = time.monotonic() + seconds
        changes, changed_at = -1, time.monotonic()
        minute_ends = time.monotonic() + 60 - time.time() % 60
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            while time.monotonic() < limit:
                row = connection.execute(
                    "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables WHERE relname ~ %s",
                    ["^(chunk|rollup)"],
                ).fetchone()
                now = time.monotonic()
                if row is not None and row[0] != changes:
                    changes, changed_at = row[0], now
                if now > max(changed_at, minute_ends) + quiet_seconds:
                    return True
                time.sleep(1)
        return False

    def table_bytes(self) -> dict[str, int]:
        """Bytes on disk by table with its indexes and TOAST, partitions under their own names."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            rows = connection.execute(
                "SELECT c.relname, pg_total_relation_size(c.oid) FROM pg_class c"
                " JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"
                " AND c.relkind = 'r' AND c.relname ~ %s",
                [_STORED],
            ).fetchall()
        return {str(name): int(size) for name, size in rows}

    def _log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


@contextlib.contextmanager
def modelmeter(**settings: object) -> Iterator[Server]:
    """A fresh server, ready; `settings` become MODELMETER_ variables. All is gone afterwards."""
    with (
        scratch() as folder,
        postgres(folder) as (conninfo, postmaster),
        serving(folder, conninfo, postmaster, **settings) as server,
    ):
        yield server


@contextlib.contextmanager
def serving(folder: Path, conninfo: str, postmaster: int, **settings: object) -> Iterator[Server]:
    """The same on a Postgres that is there already; its log is in `folder`."""
    port = free_port()
    log = folder / "serve.log"
    environment = {f"MODELMETER_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "modelmeter", "serve", "--port", str(port)]
    with started(command, log, **{"MODELMETER_DATABASE_URL": conninfo, **environment}) as process:

        def ready() -> bool:
            if process.poll() is not None:
                raise BenchError(f"modelmeter serve ended with {process.returncode}\n{log.read_text()[-3000:]}")
            return answers(port, "/readyz")

        wait_until(ready, "modelmeter serve to be ready", seconds=60, log=log)
        yield Server(port, conninfo, {process.pid: "serve", postmaster: "postgres"}, log)
    _show_errors(log)


def _show_errors(log: Path) -> None:
    """A server that logs errors has no numbers to be proud of: say so."""
    lines = log.read_text(errors="replace").splitlines()
    errors = [line for line in lines if " ERROR " in line]
    if errors:
        print(f"bench: the server logged {len(errors)} errors, at last: {errors[-1]}", file=sys.stderr)
