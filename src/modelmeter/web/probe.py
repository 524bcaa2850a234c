"""What a process without an API tells of itself, on a port of its own: /healthz (its loop comes round), /metrics."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import make_wsgi_app

from modelmeter.errors import WrongSetting


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _Silent(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def probes(host: str, port: int, trouble: Callable[[], str | None]) -> Iterator[int]:
    """Serve meanwhile, in threads; yields the port. /healthz is 503 while `trouble` says something."""
    metrics = make_wsgi_app()

    def application(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            found: Iterable[bytes] = metrics(environ, start)
            return found
        if path != "/healthz":
            status, text = "404 Not Found", "here are /healthz and /metrics"
        else:
            said = trouble()
            status, text = ("200 OK", "ok") if said is None else ("503 Service Unavailable", said)
        start(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text}\n".encode()]

    try:
        kind = _ServerV6 if ":" in host else _Server
        server = make_server(host, port, application, server_class=kind, handler_class=_Silent)
    except OSError as error:
        raise WrongSetting(f"metrics_port: cannot listen on {host}:{port}: {error.strerror}") from None
    with server:
        threading.Thread(target=server.serve_forever, name="probes", daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
