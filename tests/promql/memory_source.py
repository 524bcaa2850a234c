"""A source in memory, for tests: raw samples, and every window folded by brute force, one by one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from modelmeter import distance
from modelmeter.matcher import Matcher
from modelmeter.promql.errors import too_many_samples
from modelmeter.promql.labels import Labels, make_labels, value_of
from modelmeter.promql.source import Floats, Folded, Histograms, Ints, Samples, Statistic


@dataclass
class MemorySource:
    """`folds`: whether folded windows are served; else everything comes from raw samples."""

    folds: bool = False
    series: dict[Labels, tuple[Ints, Floats]] = field(default_factory=dict)
    selects: int = 0

    def add(self, labels: Mapping[str, str], points: Sequence[tuple[int, float]]) -> None:
        times = np.array([time for time, _ in points], dtype=np.int64)
        values = np.array([value for _, value in points], dtype=np.float64)
        order = np.argsort(times, kind="stable")
        self.series[make_labels(labels)] = times[order], values[order]

    def _matching(self, matchers: Sequence[Matcher]) -> list[Labels]:
        names = sorted(self.series)
        kept = np.ones(len(names), bool)
        for matcher in matchers:
            kept &= matcher.matches([value_of(labels, matcher.name) for labels in names])
        return [names[index] for index in np.flatnonzero(kept)]

    def select(self, matchers: Sequence[Matcher], start: int, end: int, sample_limit: int) -> Samples:
        self.selects += 1
        found, times, values = [], [], []
        for labels in self._matching(matchers):
            when, what = self.series[labels]
            inside = (when > start) & (when <= end)
            found.append(labels)
            times.append(when[inside])
            values.append(what[inside])
        sizes = [part.size for part in times]
        if sum(sizes) > sample_limit:
            raise too_many_samples()
        return Samples(
            found,
            np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
            np.concatenate([*times, np.zeros(0, np.int64)]),
            np.concatenate([*values, np.zeros(0)]),
        )

    def _windows(self, labels: Labels, range_: int, ends: Ints) -> list[tuple[Ints, Floats]]:
        when, what = self.series[labels]
        masks = [(when > end - range_) & (when <= end) for end in ends.tolist()]
        return [(when[mask], what[mask]) for mask in masks]

    def fold(
        self,
        matchers: Sequence[Matcher],
        range_: int,
        ends: Ints,
        statistics: frozenset[Statistic],
        quantile: Floats | None,
    ) -> Folded | None:
        if not self.folds:
            return None
        names = self._matching(matchers)
        shape = (len(names), ends.size)
        columns: dict[str, np.ndarray] = {
            name: np.zeros(shape, np.int64 if name in ("count", "first_at", "last_at") else np.float64)
            for name in statistics
        }
        for row, labels in enumerate(names):
            for step, (when, what) in enumerate(self._windows(labels, range_, ends)):
                columns["count"][row, step] = what.size
                if not what.size:
                    continue
                fold = {
                    "sum": what.sum(),
                    "m2": ((what - what.mean()) ** 2).sum(),
                    "min": what.min(),
                    "max": what.max(),
                    "first": what[0],
                    "last": what[-1],
                    "first_at": when[0],
                    "last_at": when[-1],
                }
                if quantile is not None:
                    fold["quantile"] = np.quantile(what, quantile[step])
                for name in statistics - {"count"}:
                    columns[name][row, step] = fold[name]
        return Folded(names, **columns)  # type: ignore[arg-type]

    def histograms(self, matchers: Sequence[Matcher], range_: int, ends: Ints) -> Histograms | None:
        if not self.folds:
            return None
        names = self._matching(matchers)
        windows = [self._windows(labels, range_, ends) for labels in names]
        binned = [[distance.bin_of(what) for _, what in row] for row in windows]
        bins = np.unique(np.concatenate([np.zeros(0, np.int64), *(part for row in binned for part in row)]))
        counts = np.zeros((len(names), ends.size, bins.size), np.int64)
        for row, parts in enumerate(binned):
            for step, part in enumerate(parts):
                np.add.at(counts[row, step], np.searchsorted(bins, part), 1)
        return Histograms(names, bins, counts)
