"""Event rules: judged on every event by the worker, without state.

- alert: LowAccuracy
  event: prediction_accuracy{env="prod"} < 0.3
"""

import json
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import promql_parser
from numpy.typing import NDArray

from modelmeter.batch import Batch
from modelmeter.matcher import Matcher, Operator

_COMPARISONS: dict[str, tuple[str, Callable[[Any, float], Any]]] = {
    "<": ("lower than", operator.lt),
    "<=": ("at most", operator.le),
    ">": ("higher than", operator.gt),
    ">=": ("at least", operator.ge),
    "==": ("equal to", operator.eq),
    "!=": ("not equal to", operator.ne),
}
_OPERATORS: dict[str, Operator] = {
    "MatchOp.Equal": "=",
    "MatchOp.NotEqual": "!=",
    "MatchOp.Re": "=~",
    "MatchOp.NotRe": "!~",
}


@dataclass(frozen=True, slots=True)
class EventRule:
    """Fires for every event whose metric compares so, and whose labels match."""

    name: str
    metric: str
    comparison: str
    threshold: float
    matchers: tuple[Matcher, ...]
    labels: Mapping[str, str] = field(default_factory=dict, compare=False)
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def text(self) -> str:
        """As it stands in a file: `prediction_accuracy{env="prod"} < 0.3`"""
        inner = ", ".join(
            f"{one.name}{one.operator}{json.dumps(one.value, ensure_ascii=False)}" for one in self.matchers
        )
        shown = f"{{{inner}}}" if inner else ""
        return f"{self.metric}{shown} {self.comparison} {repr(self.threshold).removesuffix('.0')}"

    @property
    def words(self) -> str:
        """`prediction_accuracy lower than 0.3`"""
        return f"{self.metric} {_COMPARISONS[self.comparison][0]} {repr(self.threshold).removesuffix('.0')}"

    def judge(self, batch: Batch) -> NDArray[np.intp]:
        """The rows of the events for which the rule fires, in order. An event without the metric is none."""
        column = batch.metrics.get(self.metric)
        if column is None:
            return np.zeros(0, np.intp)
        fires = _COMPARISONS[self.comparison][1](column, self.threshold)
        if self.comparison == "!=":
            fires &= ~np.isnan(column)
        if not fires.any():
            return np.zeros(0, np.intp)
        if self.matchers:
            suits = np.ones(len(batch.streams), bool)
            for matcher in self.matchers:
                suits &= matcher.matches([dict(labels).get(matcher.name, "") for labels in batch.streams])
            fires &= suits[batch.stream]
        return np.flatnonzero(fires)


def event_fields(batch: Batch, row: int) -> dict[str, str | float]:
    """One event as its sender wrote it: name, version, the other labels, then the metrics it has."""
    labels = dict(batch.streams[int(batch.stream[row])])
    fields: dict[str, str | float] = {"name": labels.pop("name"), "version": labels.pop("version"), **labels}
    for metric, column in batch.metrics.items():
        value = float(column[row])
        if value == value:  # noqa: PLR0124  NaN: absent
            fields[metric] = value
    return fields


def parse_event(text: str) -> tuple[str, str, float, tuple[Matcher, ...]]:
    """`metric{label="x"} < 0.3` to metric, comparison, threshold and matchers. ValueError says what is wrong."""
    form = 'write it as: metric < 0.3, or metric{label="value"} >= 5'
    try:
        tree = promql_parser.parse(text)
    except ValueError as error:
        raise ValueError(f"{text!r} cannot be read ({str(error).strip()}); {form}") from None
    if not isinstance(tree, promql_parser.BinaryExpr) or not isinstance(tree.lhs, promql_parser.VectorSelector):
        raise ValueError(f"{text!r} is no comparison of a metric with a number; {form}")  # noqa: TRY004  it is text
    comparison = str(tree.op)
    if comparison not in _COMPARISONS:
        raise ValueError(f"{comparison!r} is no comparison; {form}")
    try:
        threshold = float(str(tree.rhs))
        if math.isnan(threshold) or tree.modifier is not None:
            raise ValueError
    except ValueError:
        raise ValueError(f"{str(tree.rhs)!r} is no number; {form}") from None
    selector = tree.lhs
    if selector.name is None or selector.offset is not None or selector.at is not None:
        raise ValueError(f"{text!r} needs a metric's name, without offset or @; {form}")
    if selector.matchers.or_matchers:
        raise ValueError(f"{text!r} joins matchers by or, which is not supported; write two rules")
    matchers = tuple(
        Matcher(found.name, _OPERATORS[str(found.op)], found.value) for found in selector.matchers.matchers
    )
    for matcher in matchers:
        matcher.matches_missing()  # ValueError when the regular expression is none
    return selector.name, comparison, threshold, matchers


DEFAULT_RULES = (EventRule("LowAccuracy", "prediction_accuracy", "<", 0.3, ()),)
"""What holds when no rules file is given; an empty file has no rules."""
