"""`serve`: Postgres inside (if no other is named), the API, the worker and the keeper, watched over and brought back.

The children hold a pipe to this process: when it dies, however it dies, they stop. The listening socket is made here
and outlives a killed API process, so that its clients wait a moment instead of being refused.
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from prometheus_client.multiprocess import mark_process_dead
from psycopg.conninfo import make_conninfo

from modelmeter import lifeline
from modelmeter.config import Config
from modelmeter.errors import ModelmeterError, WrongSetting
from modelmeter.runner import Hangup, Stop
from modelmeter.store.embedded import EmbeddedPostgres
from modelmeter.store.migrations import migrate
from modelmeter.web.listener import listen, url_of

log = logging.getLogger(__name__)

_WATCH_SECONDS = 0.25
_STEADY_SECONDS = 10
_API_SHARE, _WORKER_SHARE = 0.5, 0.8  # of the grace, until when each has its time; what remains is for Postgres


@dataclass(slots=True)
class _Child:
    role: str
    process: subprocess.Popen[bytes]
    started: float
    failures: int = 0
    restart_at: float = field(default=0.0)


class Supervisor:
    """One `serve`. `run` returns when it was told to stop and all is stopped."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stop = Stop()
        self._children: list[_Child] = []
        self._environment: dict[str, str] = {}
        self._counts = ""
        self._lifeline = -1
        self._listener: socket.socket | None = None
        self._said = ""
        self._hung_up = False

    def run(self) -> None:
        self._stop.install()
        hangup = Hangup()
        hangup.install()
        hangup.on_signal(self._on_hangup)
        with contextlib.ExitStack() as stack:
            postgres = None
            conninfo = self._config.database_url
            if not conninfo:
                postgres = EmbeddedPostgres(self._config.data_dir)
                conninfo = stack.enter_context(postgres).conninfo
            self._listener = stack.enter_context(listen(self._config.host, self._config.port))
            self._counts = stack.enter_context(tempfile.TemporaryDirectory(prefix="modelmeter-metrics-"))
            self._lifeline, held = os.pipe()
            stack.callback(os.close, held)
            stack.callback(os.close, self._lifeline)
            self._environment = {
                **os.environ,
                **as_environment(self._config),
                "MODELMETER_DATABASE_URL": conninfo,
                "PROMETHEUS_MULTIPROC_DIR": self._counts,
                lifeline.VARIABLE: str(self._lifeline),
            }
            migrated = self._migrate(conninfo)
            print(f"modelmeter listens on {url_of(self._listener)}", flush=True)
            if postgres is not None:
                print(f"its data is in {self._config.data_dir}", flush=True)
            roles = ["api"] * self._config.api_processes + ["worker"] * self._config.worker_processes + ["keeper"]
            try:
                for role in roles:
                    self._children.append(self._start(role))
                self._watch(postgres, conninfo, migrated=migrated)
            finally:
                self._end()

    def _start(self, role: str, failures: int = 0) -> _Child:
        argv, environment, passed = [role], self._environment, [self._lifeline]
        if role == "api" and self._listener is not None:
            # Only the API holds the port: so it is free as soon as the API is gone.
            argv += ["--listener", str(self._listener.fileno())]
            passed.append(self._listener.fileno())
            environment = environment | {"MODELMETER_GRACE_SECONDS": str(self._config.grace_seconds * _API_SHARE)}
        process = subprocess.Popen(
            [sys.executable, "-m", "modelmeter", *argv],
            env=environment,
            pass_fds=passed,
            start_new_session=True,  # Ctrl-C in a terminal is for this process alone; it tells the children in order
        )
        return _Child(role, process, time.monotonic(), failures)

    def _on_hangup(self) -> None:
        self._hung_up = True

    def _watch(self, postgres: EmbeddedPostgres | None, conninfo: str, *, migrated: bool) -> None:
        while not self._stop.wait(_WATCH_SECONDS):
            if postgres is not None:
                try:
                    if postgres.ensure_running():
                        log.warning("Postgres had died and runs again")
                    self._said = ""
                except (ModelmeterError, OSError) as error:  # a full disk is both; it passes
                    self._say(f"Postgres does not start: {error}")
            migrated = migrated or self._migrate(conninfo)
            if self._hung_up:
                self._hung_up = False
                for child in self._children:
                    if child.process.poll() is None:
                        child.process.send_signal(signal.SIGHUP)
            now = time.monotonic()
            for number, child in enumerate(self._children):
                if child.process.poll() is None:
                    continue
                if not child.restart_at:
                    mark_process_dead(child.process.pid, self._counts)  # type: ignore[no-untyped-call]
                    if child.process.returncode == 2:
                        raise WrongSetting(f"{child.role} does not start; what is wrong stands above")
                    failures = 0 if now - child.started > _STEADY_SECONDS else child.failures + 1
                    child.failures = failures
                    child.restart_at = now + min(0.1 * 2**failures, 5)
                    log.warning("%s ended with %s; starting it again", child.role, _ending(child.process.returncode))
                if now >= child.restart_at:
                    self._children[number] = self._start(child.role, child.failures)

    def _end(self) -> None:
        """The API first, so that what it has acknowledged is on the queue; then the others; all within the grace."""
        began = time.monotonic()
        if self._listener is not None:
            self._listener.close()  # the API closes its own: whoever comes now is refused, and need not wait for it
        for roles, share in ((("api",), _API_SHARE), (("worker", "keeper"), _WORKER_SHARE)):
            deadline = began + self._config.grace_seconds * share
            group = [child.process for child in self._children if child.role in roles]
            for process in group:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            for process in group:
                try:
                    process.wait(max(deadline - time.monotonic(), 0.1))
                except subprocess.TimeoutExpired:
                    log.warning("process %d did not end in time and is killed; nothing is lost by that", process.pid)
                    process.kill()
                    process.wait()

    def _migrate(self, conninfo: str) -> bool:
        """Whether the schema is this release's now; False when the database is away, which passes."""
        try:
            for name in migrate(make_conninfo(conninfo, connect_timeout=2)):
                log.info("migrated: %s", name)
        except psycopg.OperationalError as error:
            lines = str(error).strip().splitlines()
            self._say(f"the database is away: {lines[0] if lines else error!r}")
            return False
        return True

    def _say(self, what: str) -> None:
        """The same again and again is said once."""
        if what != self._said:
            self._said = what
            log.warning("%s", what)


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def as_environment(config: Config) -> dict[str, str]:
    """The settings as variables, for children."""
    found = {}
    for name, value in config.model_dump(exclude={"metrics_port"}).items():  # one port, many children
        if value is not None and value != "":
            found[f"MODELMETER_{name.upper()}"] = str(value.resolve() if isinstance(value, Path) else value)
    return found
