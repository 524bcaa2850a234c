"""A rule tried on the past: when it would have fired, and the line that it looks at. Nothing is kept.

The expression is evaluated for all of the past at once; then each series goes through the states of an alert, as the
evaluator's would: where the expression has no data at all, the alert stays as it is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import promql_parser
from numpy.typing import NDArray

from modelmeter import alert
from modelmeter.alert import Finding, Policy
from modelmeter.errors import Malformed
from modelmeter.promql import BadQuery, format_query
from modelmeter.promql.labels import METRIC_NAME
from modelmeter.promql.parse import parse
from modelmeter.promql.query import evaluate_range
from modelmeter.promql.reader import Limits
from modelmeter.promql.source import Source
from modelmeter.promql.value import Vector
from modelmeter.window import Span, parse_duration

_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
}
_STEP_LIMIT = 5_000
_LENGTH_LIMIT = 10_000
LINES = 6
PERIODS = 1_000

Mask = NDArray[np.bool_]
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """A rule to try. Durations in microseconds."""

    expr: str
    hold: int
    keep_firing: int
    interval: int
    since: int


@dataclass(frozen=True, slots=True)
class Firing:
    """When it would have fired; `end` None: still at the end."""

    labels: Labels
    start: int
    end: int | None
    value: float


@dataclass(frozen=True, slots=True)
class Trial:
    """`lines` are those series of what is compared that fire longest, shape (steps,) each; NaN is absent."""

    times: NDArray[np.int64]
    drawn: str
    threshold: float | None
    firings: list[Firing]
    lines: list[tuple[Labels, NDArray[np.float64]]]
    series: int


def read_wish(parameters: Mapping[str, str]) -> Wish:
    """Malformed names the field that cannot be read."""
    expr = parameters.get("expr", "").strip()
    if not expr or len(expr) > _LENGTH_LIMIT:
        raise Malformed(f"expr: write what must hold, in at most {_LENGTH_LIMIT:,} characters", field="expr")

    def duration(key: str, default: str) -> int:
        try:
            return parse_duration(parameters.get(key, "").strip() or default)
        except ValueError as error:
            raise Malformed(f"{key}: {error}", field=key) from None

    wish = Wish(
        expr,
        duration("for", "0s"),
        duration("keep_firing_for", "0s"),
        duration("interval", "5m"),
        duration("since", "7d"),
    )
    if not wish.interval or wish.since // wish.interval > _STEP_LIMIT:
        raise Malformed(
            f"interval: from {parameters.get('since') or '7d'} on these are more than {_STEP_LIMIT:,} evaluations; "
            "choose a longer interval",
            field="interval",
        )
    if wish.since < wish.interval:
        raise Malformed("since: must be longer than the interval", field="since")
    return wish


@dataclass(frozen=True, slots=True)
class Parts:
    """What to draw of an expression: the left side of `... < 0.8` and its threshold, else all of it."""

    drawn: str
    comparison: str
    threshold: float | None


def take_apart(expr: str) -> Parts:
    try:
        parse(expr)  # it also keeps from the parser below what would make it give up
        tree = promql_parser.parse(expr)
        if isinstance(tree, promql_parser.BinaryExpr) and str(tree.op) in _COMPARISONS and tree.modifier is None:
            return Parts(format_query(str(tree.lhs)), str(tree.op), float(str(tree.rhs)))
    except (BadQuery, ValueError):
        pass
    return Parts(expr, "", None)


def try_rule(wish: Wish, now: int, source: Source, limits: Limits) -> Trial:
    """BadQuery and its kin as in PromQL."""
    end = now - now % wish.interval
    span = Span(max(end - wish.since // wish.interval * wish.interval, 0), end)
    parts = take_apart(wish.expr)
    seen = evaluate_range(parts.drawn, span.start, span.end, wish.interval, source, limits)
    assert isinstance(seen.value, Vector)
    values, present = seen.value.values, seen.value.present
    holds = present if parts.threshold is None else present & _COMPARISONS[parts.comparison](values, parts.threshold)
    policy = Policy(wish.hold, wish.keep_firing)
    times = seen.times.tolist()
    firings: list[Firing] = []
    lasted: list[int] = []
    labels = [_identity(one) for one in seen.value.labels]
    for row, its_labels in enumerate(labels):
        its = run(its_labels, holds[row], present[row], values[row], times, policy) if holds[row].any() else []
        lasted.append(sum((one.end if one.end is not None else span.end) - one.start for one in its))
        firings += its
    shown = sorted(range(len(labels)), key=lambda row: (-lasted[row], labels[row]))[:LINES]
    lines = [(labels[row], np.where(present[row], values[row], np.nan)) for row in shown]
    firings.sort(key=lambda one: (one.start, one.labels))
    return Trial(seen.times, parts.drawn, parts.threshold, firings, lines, len(labels))


def _identity(labels: Labels) -> Labels:
    return tuple(one for one in labels if one[0] != METRIC_NAME)


def run(
    labels: Labels, holds: Mask, there: Mask, values: NDArray[np.float64], times: Sequence[int], policy: Policy
) -> list[Firing]:
    """One series through the states of an alert; arrays of shape (steps,)."""
    state: alert.State | None = None
    fired: tuple[int, float] | None = None
    firings = []
    for step, now in enumerate(times):
        finding = Finding.HOLDS if holds[step] else Finding.CLEAR if there[step] else Finding.SILENT
        state, _ = alert.step(state, finding, policy, now)
        is_firing = state is not None and state.fired_at is not None
        if is_firing and fired is None:
            fired = now, float(values[step])
        elif not is_firing and fired is not None:
            firings.append(Firing(labels, fired[0], now, fired[1]))
            fired = None
    if fired is not None:
        firings.append(Firing(labels, fired[0], None, fired[1]))
    return firings
