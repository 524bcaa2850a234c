"""What expressions evaluate to, over all steps at once. Absence is a mask beside the values: NaN is a value."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelmeter.promql.errors import same_labelset
from modelmeter.promql.labels import EMPTY, Labels, distinct, drop_metadata
from modelmeter.promql.source import Floats, Mask, Samples


@dataclass(frozen=True, slots=True)
class Vector:
    """One row per series, one column per step: `values` and `present` are (series, steps)."""

    labels: Sequence[Labels]
    values: Floats
    present: Mask

    def rows(self, chosen: Sequence[int] | np.ndarray) -> "Vector":
        index = np.asarray(chosen, dtype=np.int64)
        return Vector([self.labels[one] for one in index.tolist()], self.values[index], self.present[index])

    def nonempty(self) -> "Vector":
        """Without the series that are absent at every step."""
        some = self.present.any(axis=1)
        return self if some.all() else self.rows(np.flatnonzero(some))


Value = Vector | Samples | Floats | str
"""An instant vector, a range vector (of an instant query), a scalar per step, or a string."""


def empty(steps: int) -> Vector:
    return Vector([], np.empty((0, steps)), np.empty((0, steps), bool))


def one_series(values: Floats, labels: Labels = EMPTY) -> Vector:
    return Vector([labels], values[None, :].copy(), np.ones((1, values.size), bool))


def with_values(vector: Vector, values: Floats, present: Mask | None = None) -> Vector:
    """Other values for the same series, which thereby lose their metric name."""
    kept = vector.present if present is None else present
    return Vector([drop_metadata(labels) for labels in vector.labels], values, kept)


def require_distinct(vector: Vector) -> Vector:
    """The vector, unless two of its series have the same labels."""
    if len(set(vector.labels)) != len(vector.labels):
        raise same_labelset()
    return vector


def merge_same(vector: Vector) -> Vector:
    """Series with the same labels become one; QueryFailed when two of them are present at the same step."""
    numbers, index = distinct(vector.labels)
    if len(numbers) == len(index):
        return vector
    rows = np.asarray(index)
    count = np.zeros((len(numbers), vector.values.shape[1]), np.int64)
    np.add.at(count, rows, vector.present)
    if (count > 1).any():
        raise same_labelset()
    values = np.zeros(count.shape)
    row, step = np.nonzero(vector.present)
    values[rows[row], step] = vector.values[row, step]
    return Vector(list(numbers), values, count > 0)
