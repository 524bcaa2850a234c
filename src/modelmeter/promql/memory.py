"""A source in memory: series written out, as the unit tests of rules have them, and what rules record into it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from modelmeter.matcher import Matcher
from modelmeter.promql.errors import BadQuery, too_many_samples
from modelmeter.promql.labels import Labels, make_labels, value_of
from modelmeter.promql.parse import parse_selector
from modelmeter.promql.reader import STALE
from modelmeter.promql.source import Floats, Folded, Histograms, Ints, Samples, Statistic

STALE_NAN = float(np.array([STALE], np.int64).view(np.float64)[0])
_VALUE = r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|0[xX][0-9a-fA-F]+|[iI]nf|[nN]a[nN])"
_ITEM = re.compile(
    rf"(?P<blank>_)(?:x(?P<blanks>\d+))?|(?P<value>stale|{_VALUE})(?P<step>{_VALUE})?(?:x(?P<times>\d+))?"
)
_SAMPLE_LIMIT = 1_000_000


@dataclass
class MemorySource:
    """Raw samples only; everything is made from them."""

    series: dict[Labels, tuple[Ints, Floats]] = field(default_factory=dict)
    _fresh: dict[Labels, list[tuple[int, float]]] = field(default_factory=dict)

    def add(self, labels: Mapping[str, str], points: Sequence[tuple[int, float]]) -> None:
        """A whole series, in any order."""
        times = np.array([time for time, _ in points], dtype=np.int64)
        values = np.array([value for _, value in points], dtype=np.float64)
        order = np.argsort(times, kind="stable")
        self.series[make_labels(labels)] = times[order], values[order]

    def append(self, labels: Labels, at: int, value: float) -> None:
        """One more sample, later than all of its series."""
        self._fresh.setdefault(labels, []).append((at, value))

    def _settle(self) -> None:
        for labels, points in self._fresh.items():
            times, values = self.series.get(labels, (np.zeros(0, np.int64), np.zeros(0)))
            self.series[labels] = (
                np.concatenate((times, np.array([at for at, _ in points], np.int64))),
                np.concatenate((values, np.array([value for _, value in points], np.float64))),
            )
        self._fresh.clear()

    def matching(self, matchers: Sequence[Matcher]) -> list[Labels]:
        """The series that match, in order of their labels."""
        self._settle()
        names = sorted(self.series)
        kept = np.ones(len(names), bool)
        for matcher in matchers:
            kept &= matcher.matches([value_of(labels, matcher.name) for labels in names])
        return [names[index] for index in np.flatnonzero(kept)]

    def select(self, matchers: Sequence[Matcher], start: int, end: int, sample_limit: int) -> Samples:
        found, times, values = [], [], []
        for labels in self.matching(matchers):
            when, what = self.series[labels]
            low, high = np.searchsorted(when, [start, end], "right").tolist()
            found.append(labels)
            times.append(when[low:high])
            values.append(what[low:high])
        sizes = [part.size for part in times]
        if sum(sizes) > sample_limit:
            raise too_many_samples()
        return Samples(
            found,
            np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
            np.concatenate([*times, np.zeros(0, np.int64)]),
            np.concatenate([*values, np.zeros(0)]),
        )

    def fold(
        self,
        matchers: Sequence[Matcher],
        range_: int,
        ends: Ints,
        statistics: frozenset[Statistic],
        quantile: Floats | None,
    ) -> Folded | None:
        del matchers, range_, ends, statistics, quantile
        return None

    def histograms(self, matchers: Sequence[Matcher], range_: int, ends: Ints) -> Histograms | None:
        del matchers, range_, ends
        return None


def parse_metric(text: str) -> dict[str, str]:
    """`up{job="x"}` to its labels. ValueError when it is no series."""
    if text.strip() == "{}":
        return {}
    try:
        matchers = parse_selector(text)
    except BadQuery as error:
        raise ValueError(error.detail) from None
    if any(matcher.operator != "=" for matcher in matchers):
        raise ValueError(f"{text!r} is no series: labels of a series are given by =")
    return {matcher.name: matcher.value for matcher in matchers}


def parse_values(text: str) -> list[float | None]:
    """Prometheus' notation of a series: `1 2 _ 3x2 0+10x5 stale`; None where there is no sample.

    `3x2` is 3 and two more, `0+10x5` is 0 and five more, each 10 higher. ValueError when it cannot be read.
    """
    found: list[float | None] = []
    for word in text.split():
        if word.startswith("{{"):
            raise ValueError("native histograms are not supported")
        match = _ITEM.fullmatch(word)
        if match is None:
            raise ValueError(f"{word!r} is no value of a series; write it like 1, _, stale, 3x2 or 0+10x5")
        times = int(match["blanks"] or match["times"] or 0)
        if len(found) + times > _SAMPLE_LIMIT:
            raise ValueError(f"over {_SAMPLE_LIMIT} samples in a series")
        if match["blank"]:
            found += [None] * max(times, 0 if match["blanks"] else 1)
            continue
        value = STALE_NAN if match["value"] == "stale" else _float(match["value"])
        step = 0.0 if match["step"] is None else _float(match["step"])
        if match["step"] is not None and match["times"] is None:
            raise ValueError(f"{word!r} says no number of times; write it like 0+10x5")
        for _ in range(times + 1):
            found.append(value)
            if match["step"] is not None:
                value += step
    return found


def _float(text: str) -> float:
    return float(int(text, 16)) if text.lower().lstrip("+-").startswith("0x") else float(text)
