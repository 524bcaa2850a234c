"""The real application on a real socket, in a thread of the tests."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import uvicorn

from modelmeter.app import make_api
from modelmeter.config import Config


@contextlib.contextmanager
def serving(database_url: str, **settings: object) -> Iterator[httpx.Client]:
    """A client of the API."""
    config = Config(database_url=database_url, **settings)  # type: ignore[arg-type]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(make_api(config), log_config=None, ws="none", http="httptools"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            deadline = time.monotonic() + 30
            while not server.started:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            host, port = listener.getsockname()
            with httpx.Client(base_url=f"http://{host}:{port}", timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(30)
