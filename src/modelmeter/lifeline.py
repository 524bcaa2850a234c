"""A child ends when its parent does, however that died: both hold a pipe, and the kernel closes the parent's end.

Only the standard library is imported here: a child looks from its first moment on, not after seconds of imports.
"""

import os
import signal
import threading

VARIABLE = "_MM_LIFELINE"
"""The environment variable with the file descriptor that is open as long as the parent lives."""


def hold() -> None:
    """Send this process SIGTERM when the parent that gave us a lifeline dies; nothing without such a parent."""
    descriptor = os.environ.pop(VARIABLE, "")
    if not descriptor:
        return

    def watch() -> None:
        while os.read(int(descriptor), 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
