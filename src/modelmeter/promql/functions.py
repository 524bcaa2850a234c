"""Functions of instant vectors and scalars, by name. Scalars are one value per step.

Labels, order and presence: here too, but what needs the data's source or the clock is in the evaluator.
"""

import re
from collections.abc import Callable, Sequence
from functools import cmp_to_key

import numpy as np

from modelmeter.matcher import expand_regex, match_regex
from modelmeter.promql.errors import QueryFailed
from modelmeter.promql.expression import Expression, MatrixSelector, VectorSelector
from modelmeter.promql.labels import EMPTY, METRIC_NAME, Labels, is_label_name, make_labels, replace, value_of
from modelmeter.promql.source import Floats
from modelmeter.promql.value import Vector, merge_same, with_values


def _sign(values: Floats) -> Floats:
    return np.where(values > 0, 1.0, np.where(values < 0, -1.0, values))


MATH: dict[str, Callable[[Floats], Floats]] = {
    "abs": np.abs,
    "acos": np.arccos,
    "acosh": np.arccosh,
    "asin": np.arcsin,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "ceil": np.ceil,
    "cos": np.cos,
    "cosh": np.cosh,
    "deg": lambda values: values * 180 / np.pi,
    "exp": np.exp,
    "floor": np.floor,
    "ln": np.log,
    "log10": np.log10,
    "log2": np.log2,
    "rad": lambda values: values * np.pi / 180,
    "sgn": _sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "tan": np.tan,
    "tanh": np.tanh,
}


def round_to(vector: Vector, nearest: Floats) -> Vector:
    """Ties go up; the inverse of `nearest` is used, as in Prometheus, for fewer surprises such as round(x, 0.1)."""
    inverse = 1.0 / nearest
    return with_values(vector, np.floor(vector.values * inverse + 0.5) / inverse)


def clamp(vector: Vector, low: Floats, high: Floats) -> Vector:
    """Empty at the steps where low > high."""
    values = np.maximum(low, np.minimum(high, vector.values))
    return with_values(vector, values, vector.present & ~(high < low))


def to_scalar(vector: Vector) -> Floats:
    """The value where exactly one series is present, else NaN."""
    one = np.asarray(vector.present.sum(axis=0)) == 1
    return np.where(one, np.where(vector.present, vector.values, 0.0).sum(axis=0), np.nan)


def absent(vector: Vector, labels: Labels) -> Vector:
    """1 where no series is present."""
    missing = ~np.asarray(vector.present.any(axis=0))
    return Vector([labels], np.ones((1, missing.size)), missing[None, :])


def absent_labels(argument: Expression) -> Labels:
    """The labels that the absent series would surely have: of each name matched by `=`, and only once."""
    selector = argument.vector if isinstance(argument, MatrixSelector) else argument
    if not isinstance(selector, VectorSelector):
        return EMPTY
    found: dict[str, str] = {}
    seen: set[str] = set()
    for matcher in selector.matchers:
        if matcher.name == METRIC_NAME:
            continue
        if matcher.operator == "=" and matcher.name not in seen:
            found[matcher.name] = matcher.value
            seen.add(matcher.name)
        else:
            found.pop(matcher.name, None)
    return make_labels(found)


def label_replace(vector: Vector, target: str, replacement: str, source: str, pattern: str) -> Vector:
    if not is_label_name(target):
        raise QueryFailed(f"invalid destination label name in label_replace(): {target}")
    values = [value_of(labels, source) for labels in vector.labels]
    try:
        matched = match_regex(pattern, values)
        expanded = expand_regex(pattern, replacement, values)
    except ValueError:
        raise QueryFailed(f"invalid regular expression in label_replace(): {pattern}") from None
    changed = [
        replace(labels, {target: value}) if hit else labels
        for labels, hit, value in zip(vector.labels, matched.tolist(), expanded, strict=True)
    ]
    return merge_same(Vector(changed, vector.values, vector.present))


def label_join(vector: Vector, target: str, separator: str, sources: Sequence[str]) -> Vector:
    for source in sources:
        if not is_label_name(source):
            raise QueryFailed(f"invalid source label name in label_join(): {source}")
    if not is_label_name(target):
        raise QueryFailed(f"invalid destination label name in label_join(): {target}")
    changed = [
        replace(labels, {target: separator.join(value_of(labels, source) for source in sources)})
        for labels in vector.labels
    ]
    return merge_same(Vector(changed, vector.values, vector.present))


def sort_by_value(vector: Vector, *, descending: bool) -> Vector:
    """For one step; NaN comes last both ways."""
    values = vector.values[:, 0]
    order = np.lexsort((-values if descending else values, np.isnan(values)))
    return vector.rows(order)


def sort_by_label(vector: Vector, names: Sequence[str], *, descending: bool) -> Vector:
    """In natural order (2 before 10) of the named labels, then of all labels."""

    def compare(left: int, right: int) -> int:
        a, b = vector.labels[left], vector.labels[right]
        for name in names:
            x, y = value_of(a, name), value_of(b, name)
            if x != y:
                return -1 if _naturally_before(x, y) else 1
        return (a > b) - (a < b)

    order = sorted(range(len(vector.labels)), key=cmp_to_key(compare))
    return vector.rows(order[::-1] if descending else order)


_CHUNK = re.compile(r"(\d+|\D+)", re.ASCII)


def _naturally_before(left: str, right: str) -> bool:
    """Runs of digits compare as numbers, all else as text (github.com/facette/natsort, which Prometheus uses)."""
    a, b = _CHUNK.findall(left), _CHUNK.findall(right)
    for index, chunk in enumerate(a):
        if index >= len(b):
            return False
        other = b[index]
        numbers = chunk.isdigit() and other.isdigit()
        if (int(chunk) == int(other)) if numbers else (chunk == other):
            if index == len(a) - 1:
                return True
            if index == len(b) - 1:
                return False
            continue
        return int(chunk) < int(other) if numbers else bool(chunk < other)
    return False
