"""Binary operators between vectors and scalars, and how series of two vectors find their match.

Matching is settled once for all steps: series of equal signature are paired, each pair is one row. What Prometheus
refuses step by step (two series of the «one» side at one step) is checked with masks.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from modelmeter.promql.errors import QueryFailed, too_many_samples
from modelmeter.promql.expression import COMPARISONS, Matching
from modelmeter.promql.labels import (
    METADATA,
    METRIC_NAME,
    Labels,
    distinct,
    drop,
    drop_metadata,
    keep,
    render,
    replace,
    value_of,
)
from modelmeter.promql.source import Floats, Ints, Mask
from modelmeter.promql.value import Vector, empty, merge_same

ARITHMETIC: dict[str, Callable[[Floats, Floats], Floats]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "^": np.power,
    "%": np.fmod,
    "atan2": np.arctan2,
}
_COMPARE: dict[str, Callable[[Floats, Floats], Mask]] = {
    "==": np.equal,
    "!=": np.not_equal,
    ">": np.greater,
    "<": np.less,
    ">=": np.greater_equal,
    "<=": np.less_equal,
}

_PAIR_CELLS = 100_000_000
"""Pairs times steps: beyond it the series of one side share a signature so often that no answer is meant."""


def scalars(operator: str, left: Floats, right: Floats) -> Floats:
    if operator in COMPARISONS:
        return _COMPARE[operator](left, right).astype(np.float64)
    return ARITHMETIC[operator](left, right)


def vector_and_scalar(operator: str, vector: Vector, scalar: Floats, *, swapped: bool, return_bool: bool) -> Vector:
    """`swapped`: the scalar stands on the left. A comparison keeps the vector's values either way."""
    left, right = (scalar, vector.values) if swapped else (vector.values, scalar)
    if operator not in COMPARISONS:
        values = ARITHMETIC[operator](left, right)
        return merge_same(Vector([drop_metadata(one) for one in vector.labels], values, vector.present))
    kept = _COMPARE[operator](left, right)
    if return_bool:
        labels = [drop_metadata(one) for one in vector.labels]
        return merge_same(Vector(labels, kept.astype(np.float64), vector.present))
    return Vector(vector.labels, vector.values, vector.present & kept).nonempty()


def signature(labels: Labels, matching: Matching) -> Labels:
    """The labels that must be equal on both sides."""
    if matching.on:
        return keep(labels, matching.labels)
    return drop(labels, {METRIC_NAME, *matching.labels})


def _signatures(left: Vector, right: Vector, matching: Matching) -> tuple[int, Ints, Ints]:
    numbers, index = distinct(signature(one, matching) for one in (*left.labels, *right.labels))
    both = np.asarray(index, dtype=np.int64)
    return len(numbers), both[: len(left.labels)], both[len(left.labels) :]


def _counts(vector: Vector, signatures: Ints, size: int) -> Ints:
    """How many series of each signature are present at each step."""
    result = np.zeros((size, vector.values.shape[1]), np.int64)
    np.add.at(result, signatures, vector.present)
    return result


def set_operation(operator: str, left: Vector, right: Vector, matching: Matching) -> Vector:
    """`and`, `or`, `unless`."""
    size, of_left, of_right = _signatures(left, right, matching)
    if operator == "or":
        taken = _counts(left, of_left, size)[of_right] > 0
        labels = [*left.labels, *right.labels]
        values = np.concatenate((left.values, right.values))
        present = np.concatenate((left.present, right.present & ~taken))
        return merge_same(Vector(labels, values, present).nonempty())
    met = _counts(right, of_right, size)[of_left] > 0
    return Vector(left.labels, left.values, left.present & (met if operator == "and" else ~met)).nonempty()


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Rows of the result: the labels and values of both sides, many-side first, and where they meet."""

    many: Sequence[Labels]
    one: Sequence[Labels]
    many_values: Floats
    one_values: Floats
    present: Mask
    signatures: Ints


def vectors(operator: str, left: Vector, right: Vector, matching: Matching, *, return_bool: bool) -> Vector:
    """Arithmetic and comparison of two vectors; QueryFailed when a match is not unique."""
    turned = matching.cardinality == "one-to-many"
    many, one = (right, left) if turned else (left, right)
    size, of_many, of_one = _signatures(many, one, matching)
    one_counts, many_counts = _counts(one, of_one, size), _counts(many, of_many, size)
    filled = matching.fill_left is not None or matching.fill_right is not None
    works = (one_counts.any(axis=0) | many_counts.any(axis=0)) if filled else _both(one_counts, many_counts)
    _refuse_two_on_one_side(one, of_one, (one_counts > 1) & works, matching, "left" if turned else "right")

    parts = [_matched(many, one, of_many, of_one)]
    if matching.fill_right is not None:
        alone = many.present & ~(one_counts[of_many] > 0)
        parts.append(_filled(many, of_many, alone, matching, matching.fill_right, many_side=True))
    if matching.fill_left is not None:
        alone = one.present & ~(many_counts[of_one] > 0)
        parts.append(_filled(one, of_one, alone, matching, matching.fill_left, many_side=False))
    return _compute(operator, _join(parts), matching, turned=turned, return_bool=return_bool)


def _both(one_counts: Ints, many_counts: Ints) -> Mask:
    return np.asarray(one_counts.any(axis=0) & many_counts.any(axis=0))


def _refuse_two_on_one_side(one: Vector, of_one: Ints, twice: Mask, matching: Matching, side: str) -> None:
    if not twice.any():
        return
    number, step = np.argwhere(twice)[np.argmin(np.nonzero(twice)[1])].tolist()
    rivals = [one.labels[row] for row in np.flatnonzero((of_one == number) & one.present[:, step])[:2].tolist()]
    names = sorted(render(labels) for labels in rivals)
    group = render(signature(rivals[0], matching))
    raise QueryFailed(
        f"found duplicate series for the match group {group} on the {side} hand-side of the operation: "
        f"[{names[0]}, {names[1]}];many-to-many matching not allowed: matching labels must be unique on one side"
    )


def _matched(many: Vector, one: Vector, of_many: Ints, of_one: Ints) -> _Pairs:
    order = np.argsort(of_one, kind="stable")
    start = np.searchsorted(of_one[order], of_many, "left")
    length = np.searchsorted(of_one[order], of_many, "right") - start
    if int(length.sum()) * many.values.shape[1] > _PAIR_CELLS:
        raise too_many_samples()
    many_rows = np.repeat(np.arange(of_many.size), length)
    place = np.arange(many_rows.size) - np.repeat(np.cumsum(length) - length, length)
    one_rows = order[np.repeat(start, length) + place]
    return _Pairs(
        [many.labels[row] for row in many_rows.tolist()],
        [one.labels[row] for row in one_rows.tolist()],
        many.values[many_rows],
        one.values[one_rows],
        many.present[many_rows] & one.present[one_rows],
        of_many[many_rows],
    )


def _filled(side: Vector, of_side: Ints, alone: Mask, matching: Matching, fill: float, *, many_side: bool) -> _Pairs:
    missing = [signature(labels, matching) for labels in side.labels]
    values = np.full(side.values.shape, fill)
    if many_side:
        return _Pairs(side.labels, missing, side.values, values, alone, of_side)
    return _Pairs(missing, side.labels, values, side.values, alone, of_side)


def _join(parts: Sequence[_Pairs]) -> _Pairs:
    if len(parts) == 1:
        return parts[0]
    return _Pairs(
        [labels for part in parts for labels in part.many],
        [labels for part in parts for labels in part.one],
        np.concatenate([part.many_values for part in parts]),
        np.concatenate([part.one_values for part in parts]),
        np.concatenate([part.present for part in parts]),
        np.concatenate([part.signatures for part in parts]),
    )


def _compute(operator: str, pairs: _Pairs, matching: Matching, *, turned: bool, return_bool: bool) -> Vector:
    if not pairs.many:
        return empty(pairs.present.shape[1])
    drops_name = operator not in COMPARISONS or return_bool
    labels = [
        _result_labels(many, one, matching, drops_name=drops_name)
        for many, one in zip(pairs.many, pairs.one, strict=True)
    ]
    _refuse_ambiguous(labels, pairs, matching)
    left, right = (pairs.one_values, pairs.many_values) if turned else (pairs.many_values, pairs.one_values)
    if operator not in COMPARISONS:
        return merge_same(Vector(labels, ARITHMETIC[operator](left, right), pairs.present).nonempty())
    kept = _COMPARE[operator](left, right)
    if return_bool:
        return merge_same(Vector(labels, kept.astype(np.float64), pairs.present).nonempty())
    return merge_same(Vector(labels, left, pairs.present & kept).nonempty())


def _result_labels(many: Labels, one: Labels, matching: Matching, *, drops_name: bool) -> Labels:
    labels = drop(many, METADATA) if drops_name else many
    if matching.cardinality == "one-to-one":
        labels = keep(labels, matching.labels) if matching.on else drop(labels, matching.labels)
    if matching.include:
        labels = replace(labels, {name: value_of(one, name) for name in matching.include})
    return labels


def _refuse_ambiguous(labels: Sequence[Labels], pairs: _Pairs, matching: Matching) -> None:
    """Two rows of one signature at one step: never when one to one, else only with different labels."""
    signatures = pairs.signatures.tolist()
    if matching.cardinality == "one-to-one":
        size, index = _numbered(signatures)
        message = "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
    else:
        size, index = _numbered(zip(labels, signatures, strict=True))
        message = "multiple matches for labels: grouping labels must ensure unique matches"
    if size == len(index):
        return
    counts = np.zeros((size, pairs.present.shape[1]), np.int64)
    np.add.at(counts, index, pairs.present)
    if (counts > 1).any():
        raise QueryFailed(message)


def _numbered(keys: Iterable[Hashable]) -> tuple[int, list[int]]:
    numbers, index = distinct(keys)
    return len(numbers), index
