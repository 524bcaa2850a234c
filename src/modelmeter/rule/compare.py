"""`compare:`, sugar of an alert rule: its expression against a reference, written out as a plain expression.

    expr: avg_over_time(inference_time[1h]) > 1.2        the ratio to the reference is over 1.2
    expr: psi(inference_time[1h], reference[1h]) > 0.2   `reference` stands for the other side
    compare: previous_window

previous_window    the same, as much earlier as its range is long
previous_version   the newest version of each model against the one before it, in order of their first events
baseline:<name>    against the events that the baseline names
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from modelmeter.matcher import Matcher
from modelmeter.promql.expression import (
    COMPARISONS,
    Aggregate,
    Binary,
    Call,
    Expression,
    Matching,
    MatrixSelector,
    Negation,
    NumberLiteral,
    StringLiteral,
    Subquery,
    VectorSelector,
    children,
    kind_of,
)
from modelmeter.promql.labels import METRIC_NAME
from modelmeter.promql.parse import DRIFT_FUNCTIONS
from modelmeter.promql.text import to_text

REFERENCE = "reference"
_KINDS = ("previous_window", "previous_version")
_BASELINE = "baseline:"
_NOTHING = Binary("<", Call("vector", (NumberLiteral(1),), "vector"), NumberLiteral(0))
"""What a comparison without a reference comes to: no series."""


@dataclass(frozen=True, slots=True)
class Compare:
    """`kind` is previous_window, previous_version or baseline; only the last has a name."""

    kind: str
    name: str = ""

    @staticmethod
    def of(text: str) -> "Compare":
        if text in _KINDS:
            return Compare(text)
        name = text.removeprefix(_BASELINE).strip()
        if text.startswith(_BASELINE) and name:
            return Compare("baseline", name)
        raise ValueError(f"{text!r} is none of {', '.join(_KINDS)} and baseline:<name>")

    def __str__(self) -> str:
        return f"{_BASELINE}{self.name}" if self.kind == "baseline" else self.kind


@dataclass(frozen=True, slots=True)
class Baseline:
    """Which events a baseline names: `match` has no metric; instants in microseconds, `end` not included."""

    match: Sequence[Matcher]
    start: int
    end: int


Versions = Mapping[str, Sequence[str]]
"""The versions of each model, in the order of their first events."""


def expand_statically(compare: Compare, expression: Expression, query: str) -> tuple[str, Expression]:
    """As far as it goes without asking what is stored: previous_window is done, the others are checked."""
    _check(expression)
    if compare.kind != "previous_window":
        return query, expression
    expanded = _against(expression, _same, _earlier, (), Matching())
    return to_text(expanded), expanded


def expand(
    compare: Compare, expression: Expression, versions: Versions, baselines: Mapping[str, Baseline]
) -> Expression:
    """The plain expression of previous_version and baseline. ValueError when there is no such baseline."""
    if compare.kind == "baseline":
        baseline = baselines.get(compare.name)
        if baseline is None:
            raise ValueError(f"there is no baseline {compare.name!r}; make it first, or correct the rule's compare")
        return _against_baseline(expression, baseline)
    if compare.kind != "previous_version":
        return expression
    parts = []
    for name, known in sorted(versions.items()):
        chosen = [version for version in known if _may_match(expression, name, version)]
        if len(chosen) >= 2:
            parts.append(_against_version(expression, name, chosen[-1], chosen[-2]))
    if not parts:
        return _NOTHING
    whole: Expression = parts[0]
    for part in parts[1:]:
        whole = Binary("or", whole, part, Matching("many-to-many"))
    return whole


def _check(expression: Expression) -> None:
    if not isinstance(expression, Binary) or expression.operator not in COMPARISONS:
        raise ValueError("the expression must be a comparison with a number, like avg_over_time(x[1h]) > 1.2")
    if [kind_of(expression.left), kind_of(expression.right)] != ["vector", "scalar"]:
        raise ValueError("the expression must compare a vector, on the left, with a number, on the right")
    selectors = [one for one in _selectors(expression.left) if not _is_reference(one)]
    if not selectors:
        raise ValueError("the expression reads no metric")
    if any(one.at is not None for one in selectors):
        raise ValueError("`@` and compare do not go together")
    if _has_reference(expression.left) and not _drifts(expression.left):
        raise ValueError("`reference` stands in psi, ks, js or wasserstein, like psi(x[1h], reference[1h])")


def _selectors(expression: Expression) -> list[VectorSelector]:
    if isinstance(expression, VectorSelector):
        return [expression]
    return [found for child in children(expression) for found in _selectors(child)]


def _is_reference(selector: VectorSelector) -> bool:
    return any(one.name == METRIC_NAME and one.value == REFERENCE for one in selector.matchers)


def _has_reference(expression: Expression) -> bool:
    return any(_is_reference(one) for one in _selectors(expression))


def _drifts(expression: Expression) -> bool:
    """Whether every `reference` is the second range of a drift function over a plain range."""
    if isinstance(expression, Call) and expression.function in DRIFT_FUNCTIONS:
        first, second = expression.arguments[:2]
        return (
            isinstance(first, MatrixSelector) and isinstance(second, MatrixSelector) and not _is_reference(first.vector)
        )
    if isinstance(expression, VectorSelector):
        return not _is_reference(expression)
    return all(_drifts(child) for child in children(expression))


Change = Callable[[Expression], Expression]
"""Of a whole expression: the selectors in it become others."""


def _rebuilt(node: Expression, change: Change) -> Expression:
    """The node with its children changed."""
    match node:
        case Call():
            return replace(node, arguments=tuple(change(one) for one in node.arguments))
        case Aggregate():
            return replace(node, inner=change(node.inner))
        case Negation() | Subquery():
            return replace(node, inner=change(node.inner))
        case Binary():
            return replace(node, left=change(node.left), right=change(node.right))
        case _:
            return node


def _earlier(node: Expression) -> Expression:
    match node:
        case MatrixSelector():
            return replace(node, vector=replace(node.vector, offset=node.vector.offset + node.range))
        case Subquery():
            return replace(node, offset=node.offset + node.range)
        case VectorSelector():
            raise ValueError(
                f"previous_window needs a range: write {to_text(node)}[1h] within avg_over_time or the like"
            )
    return _rebuilt(node, _earlier)


def _only(name: str, version: str) -> Change:
    """Of this model and version alone."""
    pinned = (Matcher("name", "=", name), Matcher("version", "=", version))

    def change(node: Expression) -> Expression:
        match node:
            case VectorSelector():
                others = tuple(one for one in node.matchers if one.name not in ("name", "version"))
                return replace(node, matchers=(*pinned, *others))
            case MatrixSelector():
                vector = change(node.vector)
                assert isinstance(vector, VectorSelector)
                return replace(node, vector=vector)
        return _rebuilt(node, change)

    return change


def _of_baseline(baseline: Baseline) -> Change:
    """Of the baseline's events: its matchers, and all of its span."""

    def change(node: Expression) -> Expression:
        match node:
            case MatrixSelector():
                metric = tuple(one for one in node.vector.matchers if one.name == METRIC_NAME)
                # PromQL's ranges are open on the left and the baseline's span on the right.
                selector = VectorSelector((*baseline.match, *metric), 0, baseline.end - 1)
                return MatrixSelector(selector, baseline.end - baseline.start)
            case VectorSelector() | Subquery():
                raise ValueError("baseline needs a plain range, like avg_over_time(x[1h])")
        return _rebuilt(node, change)

    return change


def _against(
    expression: Expression, actual: Change, reference: Change, ignoring: Sequence[str], matching: Matching
) -> Expression:
    """The comparison with both sides changed: by the `reference` in it, else as a ratio."""
    assert isinstance(expression, Binary)
    left = expression.left
    if not _has_reference(left):
        return replace(expression, left=Binary("/", actual(left), reference(left), matching))

    def put(node: Expression) -> Expression:
        if isinstance(node, Call) and node.function in DRIFT_FUNCTIONS:
            first, second, *more = node.arguments
            if (
                isinstance(first, MatrixSelector)
                and isinstance(second, MatrixSelector)
                and _is_reference(second.vector)
            ):
                known = {one.value for one in more if isinstance(one, StringLiteral)}
                more += [StringLiteral(one) for one in ignoring if one not in known]
                other = reference(replace(first, range=second.range))
                return replace(node, arguments=(actual(first), other, *more))
        return _rebuilt(node, put)

    return replace(expression, left=put(left))


def _same(node: Expression) -> Expression:
    return node


def _against_version(expression: Expression, name: str, version: str, previous: str) -> Expression:
    matching = Matching("many-to-one", on=False, labels=("version",))
    return _against(expression, _only(name, version), _only(name, previous), ("version",), matching)


def _against_baseline(expression: Expression, baseline: Baseline) -> Expression:
    """One series of the baseline is the reference of all."""
    assert isinstance(expression, Binary)
    pinned = {one.name for one in baseline.match}
    for selector in _selectors(expression.left):
        pinned |= {one.name for one in selector.matchers if one.name != METRIC_NAME}
    matching = Matching("many-to-one", on=True)
    return _against(expression, _same, _of_baseline(baseline), sorted(pinned), matching)


def _may_match(expression: Expression, name: str, version: str) -> bool:
    """Whether all selectors want this model and version."""
    labels = {"name": name, "version": version}
    return all(
        bool(matcher.matches([labels[matcher.name]])[0])
        for selector in _selectors(expression)
        if not _is_reference(selector)
        for matcher in selector.matchers
        if matcher.name in labels
    )
