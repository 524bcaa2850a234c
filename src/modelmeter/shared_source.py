"""What rules read in one round, read once: each selector and range, and the samples that the round itself records."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from modelmeter.matcher import Matcher
from modelmeter.promql.labels import METRIC_NAME, Labels, value_of
from modelmeter.promql.source import Floats, Folded, Histograms, Ints, Samples, Source, Statistic

_Key = tuple[object, ...]


_STREAMS_PER_READ = 100
"""Reading so many streams costs no more than one read more: then one read of all serves all selectors of a metric."""


@dataclass(slots=True)
class SharedSource:
    """Remembers what the source beneath has answered. Where many selectors of one metric look at the same range, as in
    a rule for each model, all its series are read at once, and each selector takes its own. `streams`: how many there
    are.
    """

    beneath: Source
    streams: int = 0
    _expected: dict[tuple[str, int], set[tuple[Matcher, ...]]] = field(default_factory=dict)
    _selected: dict[_Key, Samples] = field(default_factory=dict)
    _folded: dict[_Key, Folded | None] = field(default_factory=dict)
    _histograms: dict[_Key, Histograms | None] = field(default_factory=dict)
    _indexes: dict[int, "_Index"] = field(default_factory=dict)

    def expect(self, reads: Iterable[tuple[tuple[Matcher, ...], int]]) -> None:
        """Selectors and ranges (microseconds) that will be asked for."""
        for matchers, range_ in reads:
            metric = _metric(matchers)
            if metric:
                self._expected.setdefault((metric, range_), set()).add(matchers)

    def _whole(self, matchers: Sequence[Matcher], range_: int) -> tuple[Matcher, ...] | None:
        """The selector of all series of the metric, when one read of them is cheaper than one for each selector."""
        metric = _metric(matchers)
        expected = len(self._expected.get((metric, range_), ())) if metric else 0
        if expected < 2 or len(matchers) == 1 or self.streams > expected * _STREAMS_PER_READ:
            return None
        return (Matcher(METRIC_NAME, "=", metric),)

    def _index(self, labels: Sequence[Labels]) -> "_Index":
        found = self._indexes.get(id(labels))
        if found is None:
            found = self._indexes[id(labels)] = _Index.of(labels)
        return found

    def select(self, matchers: Sequence[Matcher], start: int, end: int, sample_limit: int) -> Samples:
        key = (tuple(matchers), start, end)
        if key not in self._selected:
            whole = self._whole(matchers, end - start)
            if whole is None:
                self._selected[key] = self.beneath.select(matchers, start, end, sample_limit)
            else:
                found = self.select(whole, start, end, sample_limit)
                self._selected[key] = _samples_of(found, self._index(found.labels).rows(matchers))
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
            # Whether a quantile is exact depends on how many samples there are: those are read by themselves.
            whole = self._whole(matchers, range_) if quantile is None else None
            if whole is None:
                self._folded[key] = self.beneath.fold(matchers, range_, ends, statistics, quantile)
            else:
                found = self.fold(whole, range_, ends, statistics, quantile)
                rows = None if found is None else self._index(found.labels).rows(matchers)
                self._folded[key] = None if found is None or rows is None else _folded_of(found, rows)
        return self._folded[key]

    def histograms(self, matchers: Sequence[Matcher], range_: int, ends: Ints) -> Histograms | None:
        key = (tuple(matchers), range_, ends.tobytes())
        if key not in self._histograms:
            self._histograms[key] = self.beneath.histograms(matchers, range_, ends)
        return self._histograms[key]


def _metric(matchers: Sequence[Matcher]) -> str:
    """The metric's name, if the selector is of one metric."""
    names = [one.value for one in matchers if one.name == METRIC_NAME]
    return (
        names[0] if len(names) == 1 and all(one.operator == "=" for one in matchers if one.name == METRIC_NAME) else ""
    )


@dataclass(frozen=True, slots=True)
class _Index:
    """Which rows have which label value."""

    labels: Sequence[Labels]
    by_label: Mapping[tuple[str, str], list[int]]

    @staticmethod
    def of(labels: Sequence[Labels]) -> "_Index":
        found: dict[tuple[str, str], list[int]] = {}
        for row, pairs in enumerate(labels):
            for pair in pairs:
                found.setdefault(pair, []).append(row)
        return _Index(labels, found)

    def rows(self, matchers: Sequence[Matcher]) -> Ints:
        """The rows that match, ascending."""
        rows: list[int] | None = None
        rest = []
        for matcher in matchers:
            if matcher.name == METRIC_NAME:
                continue
            if matcher.operator == "=" and matcher.value:
                found = self.by_label.get((matcher.name, matcher.value), [])
                rows = found if rows is None or len(found) < len(rows) else rows
            rest.append(matcher)
        chosen = list(range(len(self.labels))) if rows is None else rows
        for matcher in rest:
            kept = matcher.matches([value_of(self.labels[row], matcher.name) for row in chosen])
            chosen = [row for row, keep in zip(chosen, kept.tolist(), strict=True) if keep]
        return np.array(chosen, np.int64)


def _folded_of(found: Folded, rows: Ints) -> Folded:
    columns = {
        one.name: column[rows]
        for one in fields(Folded)
        if one.name not in ("labels", "count", "infos") and (column := getattr(found, one.name)) is not None
    }
    return Folded([found.labels[row] for row in rows.tolist()], found.count[rows], infos=found.infos, **columns)


def _samples_of(found: Samples, rows: Ints) -> Samples:
    sizes = np.diff(found.offsets)[rows]
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes))).astype(np.int64)
    where = np.repeat(found.offsets[rows] - offsets[:-1], sizes) + np.arange(offsets[-1])
    return Samples([found.labels[row] for row in rows.tolist()], offsets, found.timestamps[where], found.values[where])


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
