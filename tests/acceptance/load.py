"""A client that never loses count: unique events, retried with their key until acknowledged; and the final audit."""

import gzip
import http.client
import io
import itertools
import json
import random
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import httpx
import polars as pl

from modelmeter.window import DAY, HOUR, MINUTE, SECOND, rfc3339_to_micros

MODELS = [("Mistral", "v1", "prod"), ("Mistral", "v1", "test"), ("Mistral", "v2", "prod"), ("Llama", "v1", "prod")]
_TYPES = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "arrow": "application/vnd.apache.arrow.stream",
}
_PAGE = 10_000


@dataclass(frozen=True, slots=True)
class Sent:
    """One event. `number` is unique; both values are integers, so that sums are exact. Time in microseconds."""

    model: tuple[str, str, str]
    timestamp: int
    number: int
    size: int | None

    def fields(self) -> dict[str, str | int | float]:
        name, version, env = self.model
        found: dict[str, str | int | float] = {
            "name": name,
            "version": version,
            "env": env,
            "timestamp": self.timestamp,
            "number": self.number,
        }
        if self.size is not None:
            found["size"] = self.size
        return found


def body_of(events: Sequence[Sent], kind: str) -> bytes:
    rows = [event.fields() for event in events]
    if kind == "json":
        return json.dumps(rows).encode()
    if kind == "ndjson":
        return b"\n".join(json.dumps(row).encode() for row in rows)
    frame = pl.DataFrame(
        rows,
        schema={
            "name": pl.String,
            "version": pl.String,
            "env": pl.String,
            "timestamp": pl.Int64,
            "number": pl.Float64,
            "size": pl.Float64,
        },
    )
    out = io.BytesIO()
    frame.write_ipc_stream(out)
    return out.getvalue()


class Load:
    """Sends from some threads until stopped. What is acknowledged is in `acknowledged`."""

    def __init__(
        self,
        urls: Sequence[str],
        seed: int,
        *,
        threads: int = 3,
        rest_seconds: float = 0.02,
        most: int = 300,
        first: int = 1,
        instant: Callable[[random.Random], int] | None = None,
    ) -> None:
        self.urls = list(urls)
        self.requests = 0
        self.retries = 0
        self.statuses: dict[int | str, int] = {}
        self.trouble: list[str] = []
        self._acknowledged: list[Sent] = []
        self._open: list[Sent] = []
        self._mutex = threading.Lock()
        self._numbers = itertools.count(first)
        self._stopping = threading.Event()
        self._aborting = threading.Event()
        self._rest = rest_seconds
        self._most = most
        self._epoch = time.time_ns() // 1000
        self._instant = instant or self._some_instant
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(seed * 1000 + number),), daemon=True)
            for number in range(threads)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._aborting.set()
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)

    @property
    def acknowledged(self) -> list[Sent]:
        with self._mutex:
            return list(self._acknowledged)

    @property
    def count(self) -> int:
        with self._mutex:
            return len(self._acknowledged)

    def finish(self, seconds: float = 60) -> list[Sent]:
        """Send nothing new, retry until all is acknowledged; all of it."""
        self._stopping.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
        assert not any(thread.is_alive() for thread in self._threads), f"not acknowledged in time: {self.statuses}"
        assert not self.trouble, self.trouble
        return self.acknowledged

    def abandon(self) -> tuple[list[Sent], list[Sent]]:
        """Stop at once; what was acknowledged, and what may or may not have come through."""
        self._aborting.set()
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)
        assert not self.trouble, self.trouble
        return self.acknowledged, self._open

    def _some_instant(self, dice: random.Random) -> int:
        """In the last three days, and often on an edge of a window or beside one."""
        past = self._epoch - dice.randrange(3 * DAY)
        width = dice.choice([0, 0, SECOND, MINUTE, HOUR, DAY])
        return past if not width else past - past % width + dice.choice([-1, 0, 0, 1])

    def _run(self, dice: random.Random) -> None:
        connections: dict[str, http.client.HTTPConnection] = {}
        try:
            self._send_all(dice, connections)
        finally:
            for connection in connections.values():
                connection.close()

    def _send_all(self, dice: random.Random, connections: dict[str, http.client.HTTPConnection]) -> None:
        while not self._stopping.is_set():
            count = dice.choice([1, 1, 3, dice.randint(1, self._most)])
            events = [
                Sent(
                    dice.choice(MODELS),
                    self._instant(dice),
                    next(self._numbers),
                    dice.choice([None, dice.randrange(1000)]),
                )
                for _ in range(count)
            ]
            kind = dice.choice([*_TYPES])
            key = str(uuid.UUID(int=dice.getrandbits(128)))
            body = body_of(events, kind)
            headers = {"Content-Type": _TYPES[kind], "Idempotency-Key": key}
            if dice.random() < 0.2:
                body = gzip.compress(body, 1)
                headers["Content-Encoding"] = "gzip"
            acknowledged = False
            while not acknowledged and not self._aborting.is_set():
                acknowledged = self._post(connections, dice, body, headers, len(events))
                if not acknowledged:
                    self.retries += 1
                    self._aborting.wait(0.05)
            with self._mutex:
                if acknowledged:
                    self._acknowledged += events
                    self.requests += 1
                else:
                    self._open += events
            if acknowledged and dice.random() < 0.1:  # a client whose acknowledgement got lost
                self._post(connections, dice, body, headers, len(events))
            self._stopping.wait(self._rest * dice.random() * 2)

    def _post(
        self,
        connections: dict[str, http.client.HTTPConnection],
        dice: random.Random,
        body: bytes,
        headers: dict[str, str],
        count: int,
    ) -> bool:
        url = dice.choice(self.urls)
        connection = connections.get(url)
        if connection is None:
            connection = connections[url] = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=15)
        status: int | str
        try:
            connection.request("POST", dice.choice(["/events", "/stats"]), body, headers)
            answer = connection.getresponse()
            text = answer.read()
            status = answer.status
        except (OSError, http.client.HTTPException) as error:
            status, text = type(error).__name__, b""
            connection.close()
            del connections[url]
        with self._mutex:
            self.statuses[status] = self.statuses.get(status, 0) + 1
            if status == 202:
                said = json.loads(text)
                if said["accepted"] != count or said["rejected"]:
                    self.trouble.append(f"{count} good events were answered with {text[:500]!r}")
            elif isinstance(status, int) and status not in (429, 503):
                self.trouble.append(f"{status}: {text[:500]!r}")
        return status == 202


def audit(url: str, events: Sequence[Sent], dice: random.Random, spans: int = 12) -> None:
    """Stats of every series, over all time and over exact spans, and every raw event: as acknowledged, to the last."""
    with httpx.Client(base_url=url, timeout=30) as client:
        for model in sorted({event.model for event in events}):
            name, version, env = model
            mine = [event for event in events if event.model == model]
            low, high = min(event.timestamp for event in mine), max(event.timestamp for event in mine) + 1
            wanted = [(low, high)]
            for _ in range(spans):
                edges = [low + dice.randrange(high - low), dice.choice(mine).timestamp]
                edge = dice.choice(edges)
                width = dice.choice([1, MINUTE, HOUR, DAY])
                start = edge - edge % width
                end = start + dice.choice([1, MINUTE, 59 * SECOND, HOUR, 2 * HOUR - 7, DAY, 2 * DAY + 1])
                wanted.append((start, end))
            for start, end in wanted:
                _audit_span(client, model, mine, start, end)
            found = _raw(client, f"/events/{name}/{version}", env, low, high)
            expected = sorted((event.number, event.timestamp, event.size) for event in mine)
            assert found == expected, _difference(model, found, expected)


def _audit_span(
    client: httpx.Client, model: tuple[str, str, str], events: Sequence[Sent], start: int, end: int
) -> None:
    name, version, env = model
    answer = client.get(f"/stats/{name}/{version}", params={"start": start, "end": end, "label.env": env})
    assert answer.status_code == 200, answer.text
    said = answer.json()
    inside = [event for event in events if start <= event.timestamp < end]
    expected = {
        "number": [event.number for event in inside],
        "size": [event.size for event in inside if event.size is not None],
    }
    where = f"{model} from {start} to {end}: {said}"
    assert said["events"] == len(inside), f"{len(inside)} events were acknowledged for {where}"
    for metric, values in expected.items():
        found = said["metrics"].get(metric)
        if not values:
            assert found is None, where
            continue
        assert found is not None, where
        assert found["count"] == len(values), f"{len(values)} of {metric} acknowledged for {where}"
        assert round(found["mean"] * found["count"]) == sum(values), f"the sum of {metric} is {sum(values)} for {where}"
        assert (found["min"], found["max"]) == (min(values), max(values)), where


def _raw(client: httpx.Client, path: str, env: str, start: int, end: int) -> list[tuple[int, int, int | None]]:
    answer = client.get(path, params={"start": start, "end": end, "limit": _PAGE, "label.env": env})
    assert answer.status_code == 200, answer.text
    rows = answer.json()["events"]
    if len(rows) == _PAGE:
        middle = (start + end) // 2
        return sorted(_raw(client, path, env, start, middle) + _raw(client, path, env, middle, end))
    return sorted(
        (
            int(row["number"]),
            rfc3339_to_micros(row["timestamp"]),
            int(row["size"]) if "size" in row else None,
        )
        for row in rows
    )


def _difference(model: object, found: Sequence[object], expected: Sequence[object]) -> str:
    lost, strange = set(expected) - set(found), set(found) - set(expected)
    return (
        f"{model}: {len(expected)} acknowledged, {len(found)} found; lost {sorted(lost, key=str)[:5]}, "
        f"not sent {sorted(strange, key=str)[:5]}, twice {len(found) - len(set(found))}"
    )
