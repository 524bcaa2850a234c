"""The postmaster as a child process, held by a thread."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from typing import IO

from modelmeter.store.embedded import machine
from modelmeter.store.embedded.user import User, environment

FAST_SECONDS = 20  # a fast shutdown writes a checkpoint
IMMEDIATE_SECONDS = 5


class Child(threading.Thread):
    """A process of Postgres, and the thread that started it and waits for it.

    A thread of its own, because Linux sends the death signal when the thread that forked ends, and `start`
    may well be called on a pool's.
    """

    def __init__(self, argv: list[str], user: User, death_signal: signal.Signals, *, log: IO[bytes], lock: int) -> None:
        super().__init__(name="embedded-postgres", daemon=True)
        self._argv = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
        self._argv += [str(int(death_signal)) if machine.LINUX else "0", str(user.uid), str(user.gid), *argv]
        self._log = log
        self._lock = lock
        self._process: Future[subprocess.Popen[bytes]] = Future()
        self.start()
        self._process.result()

    def run(self) -> None:
        try:
            process = subprocess.Popen(
                self._argv,
                cwd="/",  # ours may be closed to Postgres' user, and would be kept from being unmounted
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[self._lock],
                start_new_session=True,  # Ctrl-C in the terminal is for us, not for it
                umask=0o077,
            )
        except BaseException as error:
            self._process.set_exception(error)
            return
        self._process.set_result(process)
        process.wait()

    @property
    def pid(self) -> int:
        return self._process.result().pid

    @property
    def returncode(self) -> int | None:
        return self._process.result().returncode

    def stop(self) -> None:
        for number, seconds in (
            (signal.SIGINT, FAST_SECONDS),
            (signal.SIGQUIT, IMMEDIATE_SECONDS),
            (signal.SIGKILL, None),
        ):
            self._process.result().send_signal(number)
            self.join(seconds)
            if not self.is_alive():
                return


# Runs between us and Postgres, in the same process. Not a preexec_fn: that is unsafe beside threads.
# Imports come before the change of user, who may not reach Python; the death signal after, as it clears it.
_LAUNCHER = """
import os, sys
parent, number, uid, gid = map(int, sys.argv[1:5])
if number:
    import ctypes
    prctl = ctypes.CDLL(None).prctl
if os.geteuid() != uid:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
if number:
    prctl(1, number)
    if os.getppid() != parent:
        sys.exit("modelmeter is gone")
os.execv(sys.argv[5], sys.argv[5:])
"""
