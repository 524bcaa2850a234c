"""Where real processes of modelmeter run: starts them, finds them, kills them, shows their logs."""

import contextlib
import itertools
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import httpx
import psutil
import psycopg
from psycopg.conninfo import make_conninfo

import modelmeter
from modelmeter import lifeline

SOURCE = Path(modelmeter.__file__).parents[1]
PATIENCE_SECONDS = 60
_MARK = "MODELMETER_TEST_YARD"
_TAIL_BYTES = 4000

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """What `condition` gives when it is true; fails with `what` at the deadline. Errors of the way are «not yet»."""
    deadline = time.monotonic() + seconds
    last: object = None
    while True:
        try:
            found = condition()
            if found:
                return found
            last = found
        except (OSError, httpx.HTTPError, psycopg.Error, psutil.Error, AssertionError) as error:
            last = error
        assert time.monotonic() < deadline, f"after {seconds} s still not: {what} (last: {last!r})"
        time.sleep(0.02)


class Process:
    """One command of modelmeter and its log."""

    def __init__(self, argv: list[str], log: Path, environment: dict[str, str], line: int) -> None:
        self.argv = argv
        self.log = log
        with log.open("wb") as out:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "modelmeter", *argv],
                env=environment | {lifeline.VARIABLE: str(line)},  # it ends when the tests are killed
                pass_fds=[line],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def url(self) -> str:
        """Where it listens, once it says so."""

        def found() -> str | None:
            assert self.code is None, f"{self.argv} ended with {self.code}: {self.said}"
            match = re.search(r"listens on (http://\S+)", self.said)
            return match and match[1]

        deadline = time.monotonic() + PATIENCE_SECONDS
        while (address := found()) is None:
            assert time.monotonic() < deadline, f"{self.argv} does not say where it listens: {self.said}"
            time.sleep(0.02)
        return address

    @property
    def code(self) -> int | None:
        return self._popen.poll()

    def children(self, role: str) -> list[psutil.Process]:
        """The processes of this role that it has started itself."""
        with contextlib.suppress(psutil.Error):
            return [child for child in psutil.Process(self.pid).children() if role in _command(child)[2:5]]
        return []

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()

    def end(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Its exit code, waited for."""
        return self._popen.wait(seconds)


class Yard:
    """The processes of one test. Leaves nothing behind."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="modelmeter-test-", dir="/tmp"))
        self.home.chmod(0o755)  # Postgres runs as a user of its own when the tests run as root
        self.data_dir = self.home / "data"
        self.seed = 0
        self._token = secrets.token_hex(8)
        self._logs = self.home / "logs"
        self._logs.mkdir()
        self._numbers = itertools.count(1)
        self._lifeline = os.pipe()
        self.processes: list[Process] = []

    def chance(self) -> random.Random:
        """The dice of this test; MODELMETER_TEST_SEED throws the same again."""
        self.seed = int(os.environ.get("MODELMETER_TEST_SEED") or secrets.randbelow(2**32))
        print(f"MODELMETER_TEST_SEED={self.seed}")
        return random.Random(self.seed)

    def run(self, *argv: str, **settings: object) -> Process:
        """`modelmeter argv`, with MODELMETER_ settings in its environment."""
        log = self._logs / f"{next(self._numbers):03d}-{argv[0]}.log"
        process = Process([*argv], log, self.environment(**settings), self._lifeline[0])
        self.processes.append(process)
        return process

    def serve(self, port: int = 0, **settings: object) -> Process:
        return self.run("serve", "--port", str(port), "--data-dir", str(self.data_dir), **settings)

    def environment(self, **settings: object) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("MODELMETER_")}
        path = [str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
        ours |= {
            _MARK: self._token,
            "PYTHONPATH": os.pathsep.join(path),
            "POLARS_MAX_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            "MODELMETER_RETENTION_RAW": "forever",  # events of any year are read back to the microsecond
        }
        for name, value in settings.items():
            ours[name if name.isupper() else f"MODELMETER_{name.upper()}"] = str(value)
        return ours

    def command(self, *argv: str, **settings: object) -> "subprocess.CompletedProcess[str]":
        """Run one short command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "modelmeter", *argv],
            env=self.environment(**settings),
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )

    @property
    def conninfo(self) -> str:
        """Of the Postgres inside `serve`, as long as it runs."""
        host = (self.data_dir / "socket").read_text()
        return make_conninfo(
            host=host, port=5432, user="modelmeter", dbname="modelmeter", sslmode="disable", connect_timeout=5
        )

    def postmaster(self) -> psutil.Process | None:
        with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
            pid = int((self.data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
            process = psutil.Process(pid)
            if any(str(self.home) in word for word in _command(process)):
                return process
        return None

    def backends(self) -> list[psutil.Process]:
        master = self.postmaster()
        with contextlib.suppress(psutil.Error):
            return master.children() if master is not None else []
        return []

    def living(self) -> list[psutil.Process]:
        """All processes that this yard has started, however far down, and those of its Postgres."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                return False
            words = _command(process)
            if any(str(self.home) in word for word in words):
                return True
            if words and words[0].startswith("postgres: ") and self.data_dir.exists():
                facts = self.data_dir.stat()
                return f"modelmeter-{facts.st_dev:x}-{facts.st_ino:x}" in words[0]
            return process.environ().get(_MARK) == self._token
        return False

    def stop(self) -> None:
        """Kill all that was started, and wait until what came of it is gone."""
        for command in self.processes:
            command.kill()
        deadline = time.monotonic() + 10
        while left := self.living():
            if time.monotonic() > deadline:
                for process in left:
                    kill(process)
            time.sleep(0.05)

    def close(self) -> None:
        try:
            self.stop()
        finally:
            for end in self._lifeline:
                os.close(end)
            shutil.rmtree(self.home, ignore_errors=True)

    def tails(self) -> str:
        """The seed and the ends of all logs, for a test that failed."""
        parts = [f"MODELMETER_TEST_SEED={self.seed}"]
        for path in [*sorted(self._logs.glob("*")), self.data_dir / "postgres.log"]:
            with contextlib.suppress(OSError):
                parts.append(f"--- {path.name}\n{path.read_bytes()[-_TAIL_BYTES:].decode(errors='replace')}")
        return "\n".join(parts)


def _command(process: psutil.Process) -> list[str]:
    words: list[str] = process.cmdline()
    return words


def kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.Error):
        process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def connect(conninfo: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(conninfo, autocommit=True, connect_timeout=5) as connection:
        yield connection


def ask(conninfo: str, query: str) -> object:
    """One value."""
    with connect(conninfo) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def partials(conninfo: str, minutes: int) -> int:
    """How many partials of windows that ended so long ago the keeper has not folded yet."""
    return int(
        str(
            ask(
                conninfo,
                "SELECT (SELECT count(*) FROM modelmeter.rollup_partial_1m"
                f" WHERE window_start < now() - interval '{minutes + 1} min')"
                " + (SELECT count(*) FROM modelmeter.rollup_partial_1h"
                f" WHERE window_start < now() - interval '{minutes + 60} min')",
            )
        )
    )


def is_ready(url: str) -> bool:
    return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
