"""Made-up models that behave like real ones: a daily rhythm, one version that drifts, one with an incident.

`demo_events` is pure and the same for the same arguments. Every minute has random numbers of its own, so
however a run is cut into pieces, the events are the same.
"""

import io
import itertools
import math
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from modelmeter.etl.sender import ARROW, NDJSON, Answer, Parcel, SenderPool, Tally
from modelmeter.window import DAY, HOUR, MINUTE, SECOND, Span, floor

MODELS = ("Mistral", "Llama", "Qwen", "Gemma", "Phi", "DeepSeek", "Falcon", "Granite")
VERSIONS = ("v1", "v2")
BODY_EVENTS = 10_000

_BLOCK = MINUTE
_TICK = SECOND // 5
_ENVS, _ENV_SHARES = ("prod", "staging"), (0.85, 0.15)
_REGIONS, _REGION_SHARES = ("eu", "us", "ap"), (0.5, 0.35, 0.15)
_VERSION_SHARES = (0.65, 0.35)
_PEAK = 14 * HOUR  # the busiest time of the day, UTC
_CONCENTRATION = 120.0  # of the beta distribution: the larger, the less accuracy scatters
_INCIDENT_ACCURACY, _INCIDENT_CONCENTRATION, _INCIDENT_SLOWDOWN = 0.19, 200.0, 5.0


@dataclass(frozen=True, slots=True)
class Story:
    """When things go wrong: the last model's v2 over `drift`, the first model's v1 in `incident`."""

    drift: Span
    incident: Span


def story_of(start: int, end: int, drift_start: int | None = None) -> Story:
    """The incident is from 50 % to 65 % of `[start, end)`; the drift all of it, or from `drift_start` on."""
    length = end - start
    incident = Span(start + length // 2, start + length * 65 // 100)
    return Story(Span(start if drift_start is None else drift_start, end), incident)


def drifting_version(models: int) -> tuple[str, str]:
    """(name, version) of the one that slowly gets worse."""
    return MODELS[models - 1], VERSIONS[1]


def incident_version(models: int) -> tuple[str, str]:  # noqa: ARG001  the first model is there with any count
    """(name, version) of the one whose accuracy collapses for a while."""
    return MODELS[0], VERSIONS[0]


def demo_events(
    models: int, seed: int, start: int, end: int, rate: float, *, story: Story | None = None
) -> pl.DataFrame:
    """The events of `[start, end)` (UTC microseconds), in order; `rate` a second as a mean over a day.

    Columns: timestamp, name, version, env, region, prediction_accuracy (beta), drift (gamma), inference_time
    (lognormal, ms).
    """
    story = story or story_of(start, end)
    blocks = range(floor(start, _BLOCK), end, _BLOCK)
    frames = [_block(models, seed, block, rate, story) for block in blocks]
    frames = frames or [_block(models, seed, start, 0, story)]
    inside = (pl.col("timestamp") >= _at(start)) & (pl.col("timestamp") < _at(end))
    return pl.concat(frames).filter(inside)


def _at(instant: int) -> pl.Expr:
    return pl.lit(instant).cast(pl.Datetime("us", "UTC"))


def _block(models: int, seed: int, block: int, rate: float, story: Story) -> pl.DataFrame:
    random = np.random.default_rng([seed, block // _BLOCK])
    rhythm = _rhythm(block)
    count = int(random.poisson(rate * _BLOCK / SECOND * (1 + 0.5 * rhythm)))
    timestamp = np.sort(block + random.integers(0, _BLOCK, count))
    shares = np.outer(1 / np.arange(1, models + 1) ** 0.5, _VERSION_SHARES).ravel()
    kind = random.choice(models * len(VERSIONS), count, p=shares / shares.sum())
    model, version = np.divmod(kind, len(VERSIONS))
    progress = np.clip((timestamp - story.drift.start) / max(1, story.drift.end - story.drift.start), 0, 1)
    worse = np.where((model == models - 1) & (version == 1), progress, 0.0)
    broken = (model == 0) & (version == 0)
    broken &= (timestamp >= story.incident.start) & (timestamp < story.incident.end)

    accuracy = np.where(broken, _INCIDENT_ACCURACY, 0.86 - 0.03 * (model % 3) + 0.03 * version - 0.3 * worse)
    concentration = np.where(broken, _INCIDENT_CONCENTRATION, _CONCENTRATION)
    latency = 12.0 * (1 + 0.4 * model) * np.where(version == 1, 0.8, 1.0) * (1 + 0.25 * rhythm)
    latency *= np.where(broken, _INCIDENT_SLOWDOWN, 1.0)
    return pl.DataFrame(
        {
            "timestamp": pl.Series(timestamp, dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
            "name": _words(MODELS, model),
            "version": _words(VERSIONS, version),
            "env": _words(_ENVS, random.choice(len(_ENVS), count, p=_ENV_SHARES)),
            "region": _words(_REGIONS, random.choice(len(_REGIONS), count, p=_REGION_SHARES)),
            "prediction_accuracy": random.beta(accuracy * concentration, (1 - accuracy) * concentration).round(4),
            "drift": (random.gamma(2.0, 0.05, count) * (1 + 4 * worse)).round(4),
            "inference_time": random.lognormal(np.log(latency), 0.35).round(3),
        }
    )


def _rhythm(instant: int) -> float:
    """1 at the busiest time of the day, -1 twelve hours from it."""
    return math.cos(2 * math.pi * ((instant - _PEAK) % DAY) / DAY)


def _words(words: tuple[str, ...], codes: NDArray[np.int64]) -> pl.Series:
    return pl.Series(words, dtype=pl.String).gather(codes)


@dataclass(frozen=True, slots=True)
class Plan:
    """A run: `history` before `start` at once, then `[start, end)` as time passes. All in microseconds."""

    models: int
    seed: int
    rate: float
    start: int
    end: int
    history: int = 0

    @property
    def story(self) -> Story:
        """The incident is in what people watch: the live part, if there is one."""
        if self.end > self.start:
            return story_of(self.start, self.end, self.start - self.history)
        return story_of(self.start - self.history, self.end)

    @property
    def expected_events(self) -> int:
        """About how many events there will be."""
        start = self.start - self.history
        rhythm = np.mean([_rhythm(start + (self.end - start) * part // 99) for part in range(100)])
        return round(self.rate * (self.end - start) / SECOND * (1 + 0.5 * float(rhythm)))


def run(plan: Plan, pool: SenderPool, tally: Tally, advance: Callable[[int], None]) -> None:
    """Hand the plan's events to the pool, each when it is due: history as Arrow, the rest as NDJSON."""
    run_id = uuid.uuid4().hex
    numbers = itertools.count()

    def send(frame: pl.DataFrame, content_type: str) -> None:
        for rows in frame.iter_slices(BODY_EVENTS):
            parcel = Parcel(_body(rows, content_type), content_type, f"demo-{run_id}-{next(numbers)}", rows.height)
            pool.put(parcel, lambda answer: _count(tally, advance, answer))

    for frame in _pieces(plan, plan.start - plan.history, plan.start, MINUTE):
        send(frame, ARROW)
    began = time.monotonic()
    for piece in _pieces(plan, plan.start, plan.end, _BLOCK):
        tick = (pl.col("timestamp").cast(pl.Int64) - plan.start) // _TICK
        for key, frame in piece.group_by(tick.alias("tick"), maintain_order=True):
            due = began + (cast(int, key[0]) + 1) * _TICK / SECOND
            time.sleep(max(0.0, due - time.monotonic()))
            send(frame, NDJSON)


def _pieces(plan: Plan, start: int, end: int, width: int) -> Iterator[pl.DataFrame]:
    for piece in range(start, end, width):
        yield demo_events(plan.models, plan.seed, piece, min(piece + width, end), plan.rate, story=plan.story)


def _body(rows: pl.DataFrame, content_type: str) -> bytes:
    body = io.BytesIO()
    if content_type == ARROW:
        rows.write_ipc_stream(body)
    else:
        rows.write_ndjson(body)
    return body.getvalue()


def _count(tally: Tally, advance: Callable[[int], None], answer: Answer) -> None:
    tally.count(answer.accepted, answer.rejected, [f"event {error.index}: {error.detail}" for error in answer.errors])
    advance(answer.accepted + answer.rejected)
