"""Recording rules: what they give becomes ordinary events, by the ordinary way in, each window once.

A stream needs a name and a version. What an aggregation has dropped is `all`: it is over all of them.
"""

import asyncio
import math
import time
from collections.abc import Sequence

import numpy as np

from modelmeter import telemetry
from modelmeter.batch import NAME, VERSION, Batch, Refused, check_key, make_labels
from modelmeter.errors import Unprocessable
from modelmeter.message import Keyed, Message, encode, id_of_key, new_id
from modelmeter.promql.labels import METRIC_NAME, Labels, drop, value_of
from modelmeter.queue import Producer

ALL = "all"


class Recorder:
    """Writes onto the queue; `write` returns when it is durable there. For one thread."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._runner = asyncio.Runner()

    def close(self) -> None:
        self._runner.run(self._producer.close())
        self._runner.close()

    def write(self, group: str, at: int, samples: Sequence[tuple[Labels, float]]) -> None:
        """The samples (`as_stored`) of a group at `at`. Written again for the same group and time, they count once."""
        batches = batches_of(samples, at)
        events = sum(len(batch) for batch in batches)
        if not events:
            return
        key = id_of_key(f"rules\0{group}\0{at}")
        keyed = [Keyed(key, number, 0, len(batch)) for number, batch in enumerate(batches)]
        message = Message(new_id(), time.time_ns() // 1000, keyed, batches)
        self._runner.run(self._producer.enqueue(encode(message), events))
        telemetry.SAMPLES_RECORDED.inc(len(samples))


def as_stored(samples: Sequence[tuple[Labels, float]]) -> list[tuple[Labels, float]]:
    """The samples as they will be found: with name and version, and without those that no event can carry.

    Unprocessable when labels or metric are not those of an event.
    """
    found: dict[Labels, float] = {}
    for series, value in samples:
        labels = dict(series)
        metric = labels.pop(METRIC_NAME)
        try:
            check_key(metric)
            stream = make_labels({NAME: ALL, VERSION: ALL, **labels})
        except Refused as error:
            raise Unprocessable(f"{metric}: cannot be recorded: {error}") from None
        if math.isfinite(value):
            found[tuple(sorted((*stream, (METRIC_NAME, metric))))] = value
    return list(found.items())


def batches_of(samples: Sequence[tuple[Labels, float]], at: int) -> list[Batch]:
    """Batches of events at `at`, by metric."""
    by_metric: dict[str, dict[Labels, float]] = {}
    for series, value in samples:
        metric = value_of(series, METRIC_NAME)
        by_metric.setdefault(metric, {})[drop(series, {METRIC_NAME})] = value
    return [
        Batch(
            list(found),
            np.arange(len(found), dtype=np.int32),
            np.full(len(found), at, np.int64),
            {metric: np.array(list(found.values()), np.float64)},
        )
        for metric, found in by_metric.items()
    ]
