"""Aggregations over series, for all steps at once.

Groups of similar size are padded to a power of two and computed together, as windows of samples are.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b

import numpy as np

from modelmeter.promql import statistic
from modelmeter.promql.errors import QueryFailed
from modelmeter.promql.format import format_fixed
from modelmeter.promql.labels import Labels, distinct, grouping, is_label_name, replace
from modelmeter.promql.source import Floats, Ints, Mask
from modelmeter.promql.value import Vector, empty, merge_same

_BLOCK_ELEMENTS = 1 << 21

REDUCTIONS: dict[str, Callable[[Floats, Mask], Floats]] = {
    "sum": statistic.add,
    "avg": statistic.mean,
    "min": statistic.least,
    "max": statistic.greatest,
    "count": lambda _, mask: statistic.count(mask),
    "group": lambda values, _: np.ones((values.shape[0], *values.shape[2:])),
    "stddev": statistic.deviation,
    "stdvar": statistic.variance,
}
SELECTIONS = frozenset({"topk", "bottomk", "limitk", "limit_ratio"})


def _group(vector: Vector, labels: Sequence[str], *, without: bool) -> tuple[list[Labels], Ints]:
    """The groups' labels, in the order they are met, and each series' group."""
    names = frozenset(labels)
    numbers, index = distinct(grouping(one, names, without=without) for one in vector.labels)
    return list(numbers), np.asarray(index, dtype=np.int64)


def _members(group_of: Ints, steps: int) -> Iterator[tuple[Ints, Ints, Mask]]:
    """Blocks of groups: their numbers (n,), their series (n, width) and which of these are real."""
    order = np.argsort(group_of, kind="stable")
    sizes = np.bincount(group_of)
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    exponents = np.ceil(np.log2(np.maximum(sizes, 1))).astype(np.int64)
    for exponent in np.unique(exponents).tolist():
        width = 1 << exponent
        which = np.flatnonzero(exponents == exponent)
        step = max(1, _BLOCK_ELEMENTS // (width * max(steps, 1)))
        for begin in range(0, which.size, step):
            some = which[begin : begin + step]
            place = np.arange(width)
            real = place < sizes[some, None]
            yield some, order[np.where(real, starts[some, None] + place, starts[some, None])], real


def reduce_groups(
    vector: Vector, labels: Sequence[str], *, without: bool, kernel: Callable[[Floats, Mask], Floats]
) -> Vector:
    """One series per group; absent where all of the group is."""
    if not vector.labels:
        return vector
    names, group_of = _group(vector, labels, without=without)
    steps = vector.values.shape[1]
    values = np.full((len(names), steps), np.nan)
    present = np.zeros((len(names), steps), bool)
    for which, series, real in _members(group_of, steps):
        mask = vector.present[series] & real[:, :, None]
        present[which] = mask.any(axis=1)
        values[which] = kernel(vector.values[series], mask)
    return Vector(names, values, present).nonempty()


def quantile(vector: Vector, labels: Sequence[str], *, without: bool, q: Floats) -> Vector:
    return reduce_groups(
        vector, labels, without=without, kernel=lambda values, mask: statistic.quantile(values, mask, q)
    )


def select(operator: str, vector: Vector, labels: Sequence[str], *, without: bool, parameter: Floats) -> Vector:
    """`topk`, `bottomk`, `limitk`, `limit_ratio`: some series of each group, with all their labels.

    Of equal values the first series wins; NaN wins only when there is nothing else. For one step the series come
    out in order of rank, group after group.
    """
    if operator == "limit_ratio":
        return _limit_ratio(vector, parameter)
    if np.isnan(parameter).any():
        raise QueryFailed("Parameter value is NaN")
    if not vector.labels or not (parameter >= 1).any():
        return empty(vector.values.shape[1])
    if parameter.min() <= -(2.0**63):
        raise QueryFailed(f"Scalar value {format_fixed(parameter.min())} underflows int64")
    if parameter.max() >= 2.0**63:
        raise QueryFailed(f"Scalar value {format_fixed(parameter.max())} overflows int64")
    _, group_of = _group(vector, labels, without=without)
    wanted = np.trunc(parameter)
    steps = vector.values.shape[1]
    rank = np.zeros(vector.values.shape)
    for _, series, real in _members(group_of, steps):
        present = vector.present[series] & real[:, :, None]
        if operator == "limitk":
            own = np.cumsum(present, axis=1) - 1
        else:
            values = vector.values[series]
            nans = np.isnan(values)
            key = np.where(nans, 0.0, -values if operator == "topk" else values)
            order = np.lexsort((key, np.where(present, nans, 2)), axis=1)
            own = np.argsort(order, axis=1, kind="stable")
        rank[series[real]] = own[real]
    chosen = Vector(vector.labels, vector.values, vector.present & (rank < wanted))
    if steps == 1:
        return chosen.rows(np.lexsort((rank[:, 0], group_of))).nonempty()
    return chosen.nonempty()


def _limit_ratio(vector: Vector, ratio: Floats) -> Vector:
    """About that share of the series, always the same ones; a negative ratio gives exactly the others."""
    if np.isnan(ratio).any():
        raise QueryFailed("Ratio value is NaN")
    if not vector.labels:
        return vector
    ratio = np.clip(ratio, -1.0, 1.0)
    offsets = np.array([_sampling_offset(labels) for labels in vector.labels])[:, None]
    inside = np.where(ratio >= 0, offsets < ratio, offsets >= 1.0 + ratio)
    return Vector(vector.labels, vector.values, vector.present & inside).nonempty()


def _sampling_offset(labels: Labels) -> float:
    """A hash of the labels as a number in [0, 1)."""
    text = "\xff".join(part for pair in labels for part in pair)
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest()) / 2**48


def count_values(vector: Vector, labels: Sequence[str], *, without: bool, target: str) -> Vector:
    """How many series of each group have each value; the value goes into the label `target`."""
    if not is_label_name(target):
        raise QueryFailed(f"invalid label name {target!r}")
    row, step = np.nonzero(vector.present)
    if not row.size:
        return empty(vector.values.shape[1])
    found = vector.values[row, step]
    bits = np.where(np.isnan(found), np.nan, found).view(np.int64)  # -0 and 0 are two values, all NaN are one
    unique, value = np.unique(bits, return_inverse=True)
    texts = [format_fixed(one) for one in unique.view(np.float64).tolist()]
    pairs, pair = np.unique(row * unique.size + value, return_inverse=True)
    names = frozenset(labels) if without else frozenset((*labels, target))
    numbers, group_of_pair = distinct(
        grouping(replace(vector.labels[one // unique.size], {target: texts[one % unique.size]}), names, without=without)
        for one in pairs.tolist()
    )
    counts = np.zeros((len(numbers), vector.values.shape[1]))
    np.add.at(counts, (np.asarray(group_of_pair)[pair], step), 1.0)
    return merge_same(Vector(list(numbers), counts, counts > 0))
