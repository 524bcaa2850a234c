"""The listening socket."""

import errno
import socket
import time

from modelmeter.errors import WrongSetting

BACKLOG = 2048
_FREED_SECONDS = 3  # the processes of a serve that was killed let go of its port by then
_POLL_SECONDS = 0.05


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. WrongSetting when the address is not ours, or taken and not freed in a moment."""
    deadline = time.monotonic() + _FREED_SECONDS
    while True:
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
            listener = socket.socket(family, socket.SOCK_STREAM)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((host, port))
                listener.listen(BACKLOG)
            except BaseException:
                listener.close()
                raise
            listener.set_inheritable(True)
            return listener
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise WrongSetting(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from None
            time.sleep(_POLL_SECONDS)


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
