"""What rules read in one round, read once: each selector and range, and the samples that the round itself records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from modelmeter.matcher import Matcher
from modelmeter.promql.labels import Labels, value_of
from modelmeter.promql.source import Floats, Folded, Histograms, Ints, Samples, Source, Statistic

_Key = tuple[object, ...]


@dataclass(slots=True)
class SharedSource:
    """Remembers what the source beneath has answered."""

    beneath: Source
    _selected: dict[_Key, Samples] = field(default_factory=dict)
    _folded: dict[_Key, Folded | None] = field(default_factory=dict)
    _histograms: dict[_Key, Histograms | None] = field(default_factory=dict)

    def select(self, matchers: Sequence[Matcher], start: int, end: int, sample_limit: int) -> Samples:
        key = (tuple(matchers), start, end)
        if key not in self._selected:
            self._selected[key] = self.beneath.select(matchers, start, end, sample_limit)
        return self._selected[key]

    def fold(
        self,
        matchers: Sequence[Matcher],
        range_: int,
        ends: Ints,
        statistics: frozenset[Statistic],
        quantile: Floats | None,
    ) -> Folded | None:
        key = (tuple(matchers), range_, ends.tobytes(), statistics, None if quantile is None else quantile.tobytes())
        if key not in self._folded:
            self._folded[key] = self.beneath.fold(matchers, range_, ends, statistics, quantile)
        return self._folded[key]

    def histograms(self, matchers: Sequence[Matcher], range_: int, ends: Ints) -> Histograms | None:
        key = (tuple(matchers), range_, ends.tobytes())
        if key not in self._histograms:
            self._histograms[key] = self.beneath.histograms(matchers, range_, ends)
        return self._histograms[key]


@dataclass(slots=True)
class RecordedSource:
    """The source beneath, and samples that were recorded just now and are not stored yet."""

    beneath: Source
    samples: dict[Labels, list[tuple[int, float]]] = field(default_factory=dict)

    def add(self, found: Sequence[tuple[Labels, float]], at: int) -> None:
        for labels, value in found:
            self.samples.setdefault(labels, []).append((at, value))

    def _matching(self, matchers: Sequence[Matcher]) -> list[Labels]:
        names = sorted(self.samples)
        kept = np.ones(len(names), bool)
        for matcher in matchers:
            kept &= matcher.matches([value_of(labels, matcher.name) for labels in names])
        return [names[index] for index in np.flatnonzero(kept)]

    def select(self, matchers: Sequence[Matcher], start: int, end: int, sample_limit: int) -> Samples:
        found = self.beneath.select(matchers, start, end, sample_limit)
        ours = self._matching(matchers) if self.samples else []
        return found if not ours else _joined(found, {labels: self.samples[labels] for labels in ours}, start, end)

    def fold(
        self,
        matchers: Sequence[Matcher],
        range_: int,
        ends: Ints,
        statistics: frozenset[Statistic],
        quantile: Floats | None,
    ) -> Folded | None:
        if self.samples and self._matching(matchers):
            return None
        return self.beneath.fold(matchers, range_, ends, statistics, quantile)

    def histograms(self, matchers: Sequence[Matcher], range_: int, ends: Ints) -> Histograms | None:
        if self.samples and self._matching(matchers):
            return None
        return self.beneath.histograms(matchers, range_, ends)


def _joined(found: Samples, more: Mapping[Labels, Sequence[tuple[int, float]]], start: int, end: int) -> Samples:
    """By series, in order of time; a time that both have counts once."""
    rows = {labels: number for number, labels in enumerate(found.labels)}
    labels = sorted({*found.labels, *more})
    times, values = [], []
    for one in labels:
        when, what = np.zeros(0, np.int64), np.zeros(0)
        if one in rows:
            part = slice(found.offsets[rows[one]], found.offsets[rows[one] + 1])
            when, what = found.timestamps[part], found.values[part]
        extra = [(at, value) for at, value in more.get(one, ()) if start < at <= end and at not in when]
        if extra:
            when = np.concatenate((when, np.array([at for at, _ in extra], np.int64)))
            what = np.concatenate((what, np.array([value for _, value in extra])))
            order = np.argsort(when, kind="stable")
            when, what = when[order], what[order]
        times.append(when)
        values.append(what)
    sizes = [part.size for part in times]
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    return Samples(
        labels, offsets, np.concatenate([*times, np.zeros(0, np.int64)]), np.concatenate([*values, np.zeros(0)])
    )
