"""Runs the loops: each `run_once` again and again, with pauses, through failures, until it is told to stop."""

import logging
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg

from modelmeter import telemetry
from modelmeter.errors import Unavailable

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = (0.1, 0.3, 1, 2)


class Stop:
    """Set by SIGTERM and SIGINT; the lifeline sends one when the process that started this one is gone."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def install(self) -> None:
        """Call in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._event.set())

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Whether it is set, after at most so many seconds."""
        return self._event.wait(seconds)


class Hangup:
    """SIGHUP: files are to be read again. Who reads them says how it is told."""

    def __init__(self) -> None:
        self._actions: list[Callable[[], None]] = []

    def install(self) -> None:
        """Call in the main thread."""
        signal.signal(signal.SIGHUP, lambda *_: [action() for action in self._actions])

    def on_signal(self, action: Callable[[], None]) -> None:
        """`action` must only set a mark: it runs between any two instructions."""
        self._actions.append(action)


class Pulse:
    """Whether a loop comes round. One that has not for `limit_seconds` is stuck, and a new process is the cure."""

    def __init__(self, limit_seconds: float = 600) -> None:
        self._limit_seconds = limit_seconds
        self._beat_at = time.monotonic()

    def beat(self) -> None:
        self._beat_at = time.monotonic()

    def trouble(self) -> str | None:
        """What is wrong, or None."""
        quiet = time.monotonic() - self._beat_at
        return None if quiet < self._limit_seconds else f"the loop has not come round for {quiet:.0f} seconds"


def run_loop(
    name: str, run_once: Callable[[], bool], stop: Stop, pause: Callable[[bool], float], pulse: Pulse | None = None
) -> None:
    """Until `stop`: run_once, then wait `pause(whether it did anything)` seconds. A failure is waited out."""
    pulse = pulse or Pulse()
    failures = 0
    said = ""
    while not stop.is_set():
        pulse.beat()
        try:
            busy = run_once()
        except Exception as error:
            telemetry.LOOP_ERRORS.labels(name).inc()
            passing = isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError, OSError, Unavailable))
            if repr(error) != said:  # the same again is only counted
                said = repr(error)
                log.log(
                    logging.WARNING if passing else logging.ERROR,
                    "%s: %s; trying again",
                    name,
                    str(error).strip().splitlines()[0] if passing and str(error).strip() else repr(error),
                    exc_info=None if passing else error,
                )
            stop.wait(_PATIENCE_SECONDS[min(failures, len(_PATIENCE_SECONDS) - 1)])
            failures += 1
            continue
        if failures:
            log.info("%s: works again", name)
            failures, said = 0, ""
        seconds = pause(busy)
        if seconds:
            stop.wait(seconds)


_KEEPALIVES: dict[str, Any] = {
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
}
_SERVER_KEEPALIVES = (
    b"SET tcp_keepalives_idle = 2; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 3;"
    b" SET tcp_user_timeout = 5000"
)


class Leadership:
    """A session's advisory lock: of many keepers only one does the work. Lost with the connection.

    Both ends look whether the other is still there: the lock of a machine that is gone is free after six seconds.
    `on_gain` is called each time this process becomes the leader.
    """

    def __init__(self, conninfo: str, key: int, on_gain: Callable[[], None] = lambda: None) -> None:
        self._conninfo = conninfo
        self._key = key
        self._on_gain = on_gain
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None

    def held(self) -> bool:
        """Whether this process is the leader now; tries to become it."""
        if self._connection is not None:
            try:
                self._connection.execute("SELECT 1")
                return True
            except psycopg.Error:
                self._connection.close()
                self._connection = None
        connection = psycopg.connect(
            self._conninfo, autocommit=True, connect_timeout=5, application_name="modelmeter leader", **_KEEPALIVES
        )
        connection.execute(_SERVER_KEEPALIVES)
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (self._key,)).fetchone()
        if row == (True,):
            self._connection = connection
            self._on_gain()
            return True
        connection.close()
        return False

    def close(self) -> None:
        """Let another one lead at once."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
