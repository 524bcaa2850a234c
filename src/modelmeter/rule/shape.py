"""Which label sets an expression would give if all its series had events and no comparison took any away."""

from collections.abc import Callable, Sequence

import numpy as np

from modelmeter.matcher import Matcher
from modelmeter.promql import functions
from modelmeter.promql.expression import (
    COMPARISONS,
    Aggregate,
    Binary,
    Call,
    Expression,
    MatrixSelector,
    Negation,
    StringLiteral,
    Subquery,
    VectorSelector,
    kind_of,
)
from modelmeter.promql.labels import METRIC_NAME, Labels, drop, grouping, keep, make_labels
from modelmeter.promql.parse import DRIFT_FUNCTIONS
from modelmeter.promql.value import Vector

Series = Callable[[Sequence[Matcher]], Sequence[Labels]]

_CHOOSING = frozenset({"topk", "bottomk", "limitk", "limit_ratio"})
_NOTHING: frozenset[Labels] = frozenset()


def shape_of(expression: Expression, series: Series) -> frozenset[Labels]:
    """Without the metric's name. `series` gives the series that match."""
    match expression:
        case VectorSelector(matchers):
            return frozenset(drop(one, {METRIC_NAME}) for one in series(matchers))
        case MatrixSelector(vector):
            return shape_of(vector, series)
        case Subquery() | Negation():
            return shape_of(expression.inner, series)
        case Aggregate():
            inner = shape_of(expression.inner, series)
            if expression.operator in _CHOOSING:
                return inner
            if expression.operator == "count_values":
                return _NOTHING
            return frozenset(grouping(one, expression.labels, without=expression.without) for one in inner)
        case Call():
            return _of_call(expression, series)
        case Binary():
            return _of_binary(expression, series)
        case _:
            return _NOTHING


def _of_call(node: Call, series: Series) -> frozenset[Labels]:
    texts = [one.value for one in node.arguments if isinstance(one, StringLiteral)]
    inner = next((one for one in node.arguments if kind_of(one) in ("vector", "matrix")), None)
    if inner is None or node.function in ("absent", "absent_over_time", "scalar"):
        return _NOTHING
    found = shape_of(inner, series)
    if node.function in ("label_replace", "label_join") and found:
        vector = Vector(sorted(found), np.ones((len(found), 1)), np.ones((len(found), 1), bool))
        if node.function == "label_replace":
            return frozenset(functions.label_replace(vector, *texts).labels)
        return frozenset(functions.label_join(vector, texts[0], texts[1], texts[2:]).labels)
    if node.function in DRIFT_FUNCTIONS:
        return frozenset(drop(one, texts) for one in found)
    return frozenset(drop(one, {"le"}) for one in found) if node.function.startswith("histogram_") else found


def _of_binary(node: Binary, series: Series) -> frozenset[Labels]:
    if kind_of(node.right) == "scalar":
        return shape_of(node.left, series)
    if kind_of(node.left) == "scalar":
        return shape_of(node.right, series)
    left = shape_of(node.left, series)
    match node.operator:
        case "or":
            return left | shape_of(node.right, series)
        case "and" | "unless":
            return left
    matching = node.matching
    if matching.cardinality == "many-to-one":
        return left
    if matching.cardinality == "one-to-many":
        return shape_of(node.right, series)
    if matching.on:
        return frozenset(keep(one, matching.labels) for one in left)
    if node.operator in COMPARISONS and not node.return_bool and not matching.labels:
        return left
    return frozenset(make_labels(dict(drop(one, matching.labels))) for one in left)
