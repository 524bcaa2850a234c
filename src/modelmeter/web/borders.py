"""Which events are so old that only rollups will keep them: those before the border of raw events of their class."""

from collections.abc import Sequence

import numpy as np

from modelmeter.batch import Batch, fingerprint
from modelmeter.partitioner import borders_of
from modelmeter.retention import RAW, Retention
from modelmeter.store.registry import Registry
from modelmeter.window import MINUTE


class RawBorders:
    """The borders as the database has them, or where they are due by the settings, whichever is later."""

    def __init__(self, retention: Retention) -> None:
        self._retention = retention
        self._known = Registry(None, set(), {}, {}, {})
        self._before: set[bytes] = set()
        self._borders: dict[int, int] = {0: 0}
        self._latest = 0
        self._earliest = 0
        self._due = 0

    def learn(self, registry: Registry) -> None:
        """What the database has by now."""
        if registry.streams is not None and not self._before and self._retention.classes:
            self._before = set(registry.streams)
        self._known = registry
        self._due = 0

    def count_without_raw(self, batches: Sequence[Batch], now: int) -> int:
        """How many of these events will be in rollups only. A stream that is new is of the class that it matches."""
        if now >= self._due:
            self._look(now)
        return sum(self._count(batch) for batch in batches if int(batch.timestamp.min()) < self._latest)

    def earliest(self, now: int) -> int:
        """Before this, no resolution of any class reaches back; 0: one is kept for ever."""
        if now >= self._due:
            self._look(now)
        return self._earliest

    def _look(self, now: int) -> None:
        keeps = {0: self._retention.keep}
        for one in self._retention.classes:
            if one.name in self._known.classes:
                keeps[self._known.classes[one.name]] = one.keep
        borders = {number: borders_of(keep, now).get(RAW, 0) for number, keep in keeps.items()}
        for number, border in self._known.raw_from.items():
            borders[number] = max(border, borders.get(number, 0))
        spans = [self._retention.keep, *(one.keep for one in self._retention.classes)]
        self._earliest = min(borders_of(keep, now).get("1d", 0) for keep in spans)
        self._borders, self._latest, self._due = borders, max(borders.values()), now + MINUTE

    def _count(self, batch: Batch) -> int:
        matched = self._retention.classify(batch.streams)
        borders = []
        for labels, name in zip(batch.streams, matched, strict=True):
            its_print = fingerprint(labels)
            number = self._known.class_of.get(its_print, 0)
            if not number and name is not None and its_print not in self._before:
                number = self._known.classes.get(name, 0)
            borders.append(self._borders.get(number, 0))
        return int((batch.timestamp < np.array(borders, np.int64)[batch.stream]).sum())
