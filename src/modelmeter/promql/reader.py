"""Reads selectors from the source: folded windows if it has them, else raw samples, each selector fetched once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from modelmeter.matcher import Matcher
from modelmeter.promql.errors import TooMuchData, too_many_samples
from modelmeter.promql.expression import At, VectorSelector
from modelmeter.promql.labels import Labels
from modelmeter.promql.note import Notes
from modelmeter.promql.source import Floats, Folded, Histograms, Ints, Samples, Source, Statistic
from modelmeter.promql.value import Vector
from modelmeter.promql.window_samples import last_before
from modelmeter.window import MINUTE, SECOND

STALE = 0x7FF0000000000002
"""The bits of the NaN by which Prometheus marks the end of a series."""


def _never_late() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query may take. `samples` bounds each matrix of series by steps, and the raw samples in memory.

    `check_time` is called now and then, and raises QueryTimeout when it is late.
    """

    samples: int = 50_000_000
    series: int = 100_000
    steps: int = 11_000
    lookback: int = 5 * MINUTE
    default_step: int = MINUTE
    check_time: Callable[[], None] = _never_late


@dataclass(frozen=True, slots=True)
class Reader:
    """`start` and `end` of the whole query, which `@ start()` and `@ end()` mean."""

    source: Source
    limits: Limits
    notes: Notes
    start: int
    end: int
    _fetched: dict[tuple[tuple[Matcher, ...], int, int], Samples] = field(default_factory=dict)

    def instants(self, times: Ints, at: At, offset: int) -> Ints:
        """Where a selector with these modifiers looks, for each evaluation time."""
        match at:
            case None:
                return times - offset
            case "start":
                pinned = self.start
            case "end":
                pinned = self.end
            case int():
                pinned = at
        return np.full(times.shape, pinned - offset, np.int64)

    def check_cells(self, series: int, steps: int) -> None:
        """TooMuchData when a matrix of that shape is over the limit."""
        self.limits.check_time()
        if series > self.limits.series:
            raise TooMuchData(
                f"the query touches {series:,} series, more than the limit of {self.limits.series:,}; "
                "narrow it with label matchers"
            )
        if series * steps > self.limits.samples:
            raise too_many_samples()

    def samples(self, matchers: tuple[Matcher, ...], start: int, end: int) -> Samples:
        """The raw samples in `(start, end]`, without stale markers."""
        return _without_stale(self._fetch(matchers, start, end))

    def _fetch(self, matchers: tuple[Matcher, ...], start: int, end: int) -> Samples:
        self.limits.check_time()
        key = (matchers, start, end)
        if key not in self._fetched:
            room = self.limits.samples - sum(one.timestamps.size for one in self._fetched.values())
            found = self.source.select(matchers, start, end, room)
            if found.timestamps.size > room:
                raise too_many_samples()
            self.check_cells(len(found.labels), 1)
            self._add_infos(found.infos)
            self._fetched[key] = found
        return self._fetched[key]

    def fold(
        self, matchers: tuple[Matcher, ...], range_: int, ends: Ints, needs: frozenset[Statistic], q: Floats | None
    ) -> Folded | None:
        self.limits.check_time()
        folded = self.source.fold(matchers, range_, ends, needs, q)
        if folded is not None:
            self.check_cells(len(folded.labels), ends.size)
            self._add_infos(folded.infos)
        return folded

    def histograms(self, matchers: tuple[Matcher, ...], range_: int, ends: Ints) -> Histograms | None:
        self.limits.check_time()
        found = self.source.histograms(matchers, range_, ends)
        if found is not None:
            self.check_cells(len(found.labels) * max(1, found.bins.size), ends.size)
            self._add_infos(found.infos)
        return found

    def vector(self, selector: VectorSelector, times: Ints) -> Vector:
        """The last value of each series within the lookback."""
        ends = self.instants(times, selector.at, selector.offset)
        folded = self.fold(selector.matchers, self.limits.lookback, ends, frozenset(("count", "last")), None)
        if folded is not None and folded.last is not None:
            return Vector(folded.labels, folded.last, folded.count > 0).nonempty()
        labels, samples, position, present = self._latest(selector, ends)
        return Vector(labels, _take(samples.values, position), present).nonempty()

    def timestamps(self, selector: VectorSelector, times: Ints) -> Vector:
        """The Unix seconds of the samples that `vector` finds."""
        ends = self.instants(times, selector.at, selector.offset)
        folded = self.fold(selector.matchers, self.limits.lookback, ends, frozenset(("count", "last_at")), None)
        if folded is not None and folded.last_at is not None:
            return Vector(folded.labels, folded.last_at / SECOND, folded.count > 0).nonempty()
        labels, samples, position, present = self._latest(selector, ends)
        return Vector(labels, _take(samples.timestamps, position) / SECOND, present).nonempty()

    def _latest(self, selector: VectorSelector, ends: Ints) -> tuple[Sequence[Labels], Samples, Ints, np.ndarray]:
        samples = self._fetch(selector.matchers, int(ends.min()) - self.limits.lookback, int(ends.max()))
        self.check_cells(len(samples.labels), ends.size)
        position = last_before(samples, ends) - 1
        found = position >= samples.offsets[:-1, None]
        position = np.where(found, position, 0)
        recent = _take(samples.timestamps, position) > ends - self.limits.lookback
        stale = _take(samples.values, position).view(np.int64) == STALE
        return samples.labels, samples, position, found & recent & ~stale

    def _add_infos(self, infos: Sequence[str]) -> None:
        for info in infos:
            self.notes.inform(info)


def _take(flat: np.ndarray, position: Ints) -> np.ndarray:
    if not flat.size:
        return np.zeros(position.shape, flat.dtype)
    return np.asarray(flat[position])


def _without_stale(samples: Samples) -> Samples:
    stale = samples.values.view(np.int64) == STALE
    if not stale.any():
        return samples
    before = np.concatenate((np.zeros(1, np.int64), np.cumsum(~stale)))
    return Samples(samples.labels, before[samples.offsets], samples.timestamps[~stale], samples.values[~stale])
