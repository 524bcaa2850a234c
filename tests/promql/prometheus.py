"""Debian's Prometheus as a second opinion: started on loopback with given samples, stopped afterwards."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

Series = tuple[dict[str, str], Sequence[tuple[int, float]]]


class Prometheus:
    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30)

    def instant(self, query: str, time: float) -> dict[str, Any]:
        return self._ask("query", query=query, time=time)

    def range(self, query: str, start: float, end: float, step: float) -> dict[str, Any]:
        return self._ask("query_range", query=query, start=start, end=end, step=step)

    def _ask(self, path: str, **form: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.post(f"/api/v1/{path}", data=form).json()
        return answer

    def close(self) -> None:
        self._client.close()


@contextmanager
def running_prometheus(directory: Path, series: Sequence[Series]) -> Iterator[Prometheus]:
    for program in ("prometheus", "promtool"):
        if shutil.which(program) is None:
            pytest.fail(f"{program} is missing, and these tests need its opinion: apt-get install prometheus")
    samples = directory / "samples.txt"
    samples.write_text(_open_metrics(series))
    data = directory / "data"
    blocks = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet", str(samples), str(data)]
    subprocess.run(blocks, check=True, capture_output=True)
    (directory / "prometheus.yml").write_text("global: {evaluation_interval: 1m}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        "prometheus",
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address={address}",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stderr is not None
            if not any("Server is ready" in line for line in process.stderr):
                pytest.fail("prometheus did not start")
            prometheus = Prometheus(f"http://{address}")
            yield prometheus
            prometheus.close()
        finally:
            process.terminate()
            process.communicate()


def _open_metrics(series: Sequence[Series]) -> str:
    """The samples as OpenMetrics text: a family's samples together, times in seconds."""
    lines = []
    for labels, points in sorted(series, key=lambda one: sorted(one[0].items())):
        rest = ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items() if name != "__name__")
        name = labels["__name__"]
        lines += [
            f"{name}{{{rest}}} {_number(value)} {at // 1_000_000}.{at // 1000 % 1000:03d}" for at, value in points
        ]
    return "\n".join([*lines, "# EOF\n"])


def _number(value: float) -> str:
    return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}.get(repr(value), repr(value))
