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

from modelmeter.config import Config
from modelmeter.errors import ModelmeterError, WrongSetting
from modelmeter.runner import LIFELINE, Stop
from modelmeter.store.embedded import EmbeddedPostgres
from modelmeter.store.migrations import migrate

log = logging.getLogger(__name__)

_WATCH_SECONDS = 0.25
_STEADY_SECONDS = 10


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
        self._passed: tuple[int, ...] = ()

    def run(self) -> None:
        self._stop.install()
        with contextlib.ExitStack() as stack:
            postgres = None
            conninfo = self._config.database_url
            if not conninfo:
                postgres = EmbeddedPostgres(self._config.data_dir)
                conninfo = stack.enter_context(postgres).conninfo
                migrate(conninfo)
            listener = stack.enter_context(listen(self._config.host, self._config.port))
            counts = stack.enter_context(tempfile.TemporaryDirectory(prefix="modelmeter-metrics-"))
            lifeline, held = os.pipe()
            stack.callback(os.close, held)
            stack.callback(os.close, lifeline)
            self._passed = (listener.fileno(), lifeline)
            self._environment = {
                **os.environ,
                **as_environment(self._config),
                "MODELMETER_DATABASE_URL": conninfo,
                "PROMETHEUS_MULTIPROC_DIR": counts,
                LIFELINE: str(lifeline),
            }
            host, port = listener.getsockname()[:2]
            print(f"modelmeter listens on http://{_in_url(host)}:{port}", flush=True)
            if postgres is not None:
                print(f"its data is in {self._config.data_dir}", flush=True)
            roles = (
                [f"api --listener {listener.fileno()}"] * self._config.api_processes
                + ["worker"] * self._config.worker_processes
                + ["keeper"]
            )
            try:
                self._children = [self._start(role) for role in roles]
                self._watch(postgres, conninfo)
            finally:
                self._end()

    def _start(self, role: str, failures: int = 0) -> _Child:
        process = subprocess.Popen(
            [sys.executable, "-m", "modelmeter", *role.split()],
            env=self._environment,
            pass_fds=self._passed,
            start_new_session=True,  # Ctrl-C in a terminal is for this process alone; it tells the children in order
        )
        return _Child(role, process, time.monotonic(), failures)

    def _watch(self, postgres: EmbeddedPostgres | None, conninfo: str) -> None:
        migrated = postgres is not None
        while not self._stop.wait(_WATCH_SECONDS):
            if postgres is not None:
                try:
                    if postgres.ensure_running():
                        log.warning("Postgres had died and runs again")
                except ModelmeterError as error:
                    log.warning("Postgres does not start: %s", error)
            elif not migrated:
                migrated = _try_to_migrate(conninfo)
            now = time.monotonic()
            for number, child in enumerate(self._children):
                if child.process.poll() is None:
                    continue
                if not child.restart_at:
                    name = child.role.split()[0]
                    if child.process.returncode == 2:
                        raise WrongSetting(f"{name} does not start; what is wrong stands above")
                    failures = 0 if now - child.started > _STEADY_SECONDS else child.failures + 1
                    child.failures = failures
                    child.restart_at = now + min(0.1 * 2**failures, 5)
                    log.warning("%s ended with %s; starting it again", name, _ending(child.process.returncode))
                if now >= child.restart_at:
                    self._children[number] = self._start(child.role, child.failures)

    def _end(self) -> None:
        """The API first, so that what it has acknowledged is on the queue; then the others; all within the grace."""
        deadline = time.monotonic() + self._config.grace_seconds
        for roles in (("api",), ("worker", "keeper")):
            group = [child.process for child in self._children if child.role.split()[0] in roles]
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


def _try_to_migrate(conninfo: str) -> bool:
    try:
        for name in migrate(conninfo):
            log.info("migrated: %s", name)
    except WrongSetting:
        raise
    except Exception as error:
        log.warning("the database is away: %s", str(error).strip().splitlines()[0])
        time.sleep(0)
        return False
    return True


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def listen(host: str, port: int) -> socket.socket:
    """The listening socket. WrongSetting when the address is taken or not ours."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        raise WrongSetting(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from None
    listener.set_inheritable(True)
    return listener


def as_environment(config: Config) -> dict[str, str]:
    """The settings as variables, for children."""
    found = {}
    for name, value in config.model_dump(exclude={"metrics_port"}).items():  # one port, many children
        if value is not None and value != "":
            found[f"MODELMETER_{name.upper()}"] = str(value.resolve() if isinstance(value, Path) else value)
    return found


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
