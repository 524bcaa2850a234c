"""Numbers for the label sets that were seen, so that an event's labels cost one look-up."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from modelmeter.batch import Labels, make_labels

Admit: TypeAlias = Callable[[Labels], None]
"""Raises Refused when this set of labels would be one stream too many."""

_LABEL_SETS_KEPT = 200_000


class Codebook:
    """Grows with the label sets; who holds numbers of it must drop them when it is cleared."""

    def __init__(self, admit_stream: Admit) -> None:
        self._admit_stream = admit_stream
        self._known: dict[Labels, int] = {}
        self._label_sets: list[Labels] = []

    @property
    def is_full(self) -> bool:
        return len(self._label_sets) > _LABEL_SETS_KEPT

    def clear(self) -> None:
        self._known.clear()
        self._label_sets.clear()

    def code_of(self, pairs: Iterable[tuple[str, str | None]]) -> int:
        """The number of a label set in this book. Raises Refused when it cannot be a stream."""
        labels = make_labels({key: value for key, value in pairs if value is not None})
        code = self._known.get(labels)
        if code is None:
            self._admit_stream(labels)
            code = len(self._label_sets)
            self._known[labels] = code
            self._label_sets.append(labels)
        return code

    def streams_of(self, codes: NDArray[np.int64]) -> tuple[list[Labels], NDArray[np.int32]]:
        """The label sets that occur in `codes`, and `codes` as indexes of them."""
        used = np.unique(codes) if len(self._label_sets) > 8 * codes.size else np.flatnonzero(np.bincount(codes))
        index = np.zeros(int(used[-1]) + 1, np.int32)
        index[used] = np.arange(used.size, dtype=np.int32)
        return [self._label_sets[code] for code in used.tolist()], index[codes]

    def label_set(self, code: int) -> Labels:
        return self._label_sets[code]
