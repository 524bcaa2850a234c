"""The events of every benchmark, from one seeded generator, and the request bodies made of them.

Accuracy is beta(8, 2) to 4 decimals, drift gamma(2, 0.05) to 4, inference time lognormal(2, 0.6) to 3.
"""

import io
import math
from collections.abc import Iterator

import numpy as np
import polars as pl

SEED = 20_260_101
METRICS = ("prediction_accuracy", "drift", "inference_time")
_NAMES = ("Mistral", "Llama", "Gemma", "Qwen")

JSON = "application/json"
NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"


def streams(count: int) -> pl.DataFrame:
    """`count` pairs of name and version: 12 are 4 names with 3 versions each."""
    versions = max(1, math.isqrt(count))
    rows = [divmod(index, versions) for index in range(count)]
    return pl.DataFrame(
        {
            "name": [_NAMES[name % 4] if name < 4 else f"{_NAMES[name % 4]}-{name // 4}" for name, _ in rows],
            "version": [f"v{version + 1}" for _, version in rows],
        }
    )


class Generator:
    """Frames of events, each one different, the same ones in every run."""

    def __init__(self, stream_count: int = 12, *, in_turn: bool = False, seed: int = SEED) -> None:
        self._rng = np.random.default_rng(seed)
        self._streams = streams(stream_count)
        self._in_turn = in_turn
        self._next = 0

    def frame(self, count: int) -> pl.DataFrame:
        """`count` events without a timestamp (the server then takes the time of arrival)."""
        rng = self._rng
        if self._in_turn:
            picked = (self._next + np.arange(count)) % self._streams.height
            self._next += count
        else:
            picked = rng.integers(0, self._streams.height, count)
        return self._streams[picked].with_columns(
            pl.Series("prediction_accuracy", rng.beta(8, 2, count).round(4)),
            pl.Series("drift", rng.gamma(2, 0.05, count).round(4)),
            pl.Series("inference_time", rng.lognormal(2, 0.6, count).round(3)),
        )

    def timed_frame(self, count: int, start: int) -> pl.DataFrame:
        """As `frame`, with `timestamp` in whole milliseconds, strictly rising from `start` (microseconds)."""
        steps = self._rng.integers(1, 4, count) * 1_000
        times = pl.Series("timestamp", start + np.cumsum(steps), pl.Int64)
        return self.frame(count).with_columns(times)


def json_array(frame: pl.DataFrame) -> bytes:
    return frame.write_json().encode()


def json_object(frame: pl.DataFrame) -> bytes:
    """The one event of `frame`, as it is."""
    return frame.write_ndjson().strip().encode()


def ndjson(frame: pl.DataFrame) -> bytes:
    return frame.write_ndjson().encode()


def arrow(frame: pl.DataFrame) -> bytes:
    """An Arrow IPC stream; an integer `timestamp` becomes a real one, in UTC microseconds."""
    if "timestamp" in frame.columns:
        frame = frame.with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC")))
    buffer = io.BytesIO()
    frame.write_ipc_stream(buffer)
    return buffer.getvalue()


def influx_lines(frame: pl.DataFrame) -> bytes:
    """Influx line protocol with nanoseconds, for the peers. `frame` has a timestamp."""
    line = pl.format(
        "model,name={},version={} prediction_accuracy={},drift={},inference_time={} {}\n",
        "name",
        "version",
        *METRICS,
        pl.col("timestamp") * 1_000,
    )
    return str(frame.select(line.str.join("")).item()).encode()


class BackfillBodies:
    """Arrow bodies with rising timestamps, made by writing new timestamps over those of a ready body.

    Timestamps are multiples of `unit` microseconds.
    It needs no Polars once it is made, so a forked load generator can use it.
    """

    def __init__(self, event_count: int, start: int, end: int, *, per_body: int = 50_000, unit: int = 1) -> None:
        self._rng = np.random.default_rng(SEED)
        self._event_count = event_count
        self._unit = unit
        self._start = start
        self._step = (end - start) / event_count
        self._per_body = min(per_body, event_count)
        generator = Generator()
        marks = np.arange(self._per_body, dtype=np.int64) * 1_000_003 + 1_700_000_000_000_000
        self._templates: list[tuple[bytearray, int]] = []
        for _ in range(16):
            frame = generator.frame(self._per_body).with_columns(pl.Series("timestamp", marks))
            body = bytearray(arrow(frame))
            offset = body.find(marks.tobytes())
            if offset < 0:
                raise RuntimeError("the timestamps do not stand as they are in the Arrow body")
            self._templates.append((body, offset))

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        """Whole bodies only: `event_count` rounded up to the next body."""
        for number in range(-(-self._event_count // self._per_body)):
            body, offset = self._templates[number % len(self._templates)]
            places = number * self._per_body + self._rng.uniform(0, 1, self._per_body)
            places += np.arange(self._per_body)
            times = np.frombuffer(body, np.int64, self._per_body, offset)
            times[:] = self._start + places * self._step
            times -= times % self._unit
            del times
            yield bytes(body), self._per_body
