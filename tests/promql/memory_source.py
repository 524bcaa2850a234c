"""The source in memory that can serve folded windows too: each folded by brute force, one by one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelmeter import distance
from modelmeter.matcher import Matcher
from modelmeter.promql import memory
from modelmeter.promql.labels import Labels
from modelmeter.promql.source import Floats, Folded, Histograms, Ints, Samples, Statistic


@dataclass
class MemorySource(memory.MemorySource):
    """`folds`: whether folded windows are served; else everything comes from raw samples."""

    folds: bool = False
    selects: int = 0

    def select(self, matchers: Sequence[Matcher], start: int, end: int, sample_limit: int) -> Samples:
        self.selects += 1
        return super().select(matchers, start, end, sample_limit)

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
        names = self.matching(matchers)
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
        names = self.matching(matchers)
        windows = [self._windows(labels, range_, ends) for labels in names]
        binned = [[distance.bin_of(what) for _, what in row] for row in windows]
        bins = np.unique(np.concatenate([np.zeros(0, np.int64), *(part for row in binned for part in row)]))
        counts = np.zeros((len(names), ends.size, bins.size), np.int64)
        for row, parts in enumerate(binned):
            for step, part in enumerate(parts):
                np.add.at(counts[row, step], np.searchsorted(bins, part), 1)
        return Histograms(names, bins, counts)
