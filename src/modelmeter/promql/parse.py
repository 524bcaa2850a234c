"""The text of a query to an expression. Promql-parser knows the grammar; the types it lets pass are checked here.

Ours in the grammar: psi, ks, js and wasserstein over two range vectors, and any number of labels to ignore.
Not in it (promql-parser 0.12): `smoothed` and `anchored`, arithmetic on durations, 1_000, 0b11, `@` before 1970.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import promql_parser as pp

from modelmeter.matcher import Matcher, Operator, match_regex
from modelmeter.promql import expression as ex
from modelmeter.promql.errors import BadQuery

DRIFT_FUNCTIONS = ("psi", "ks", "js", "wasserstein")

NATIVE_HISTOGRAM_FUNCTIONS = frozenset(
    {"histogram_avg", "histogram_count", "histogram_stddev", "histogram_stdvar", "histogram_sum"}
)

_KINDS: dict[str, ex.Kind] = {"Scalar": "scalar", "Vector": "vector", "Matrix": "matrix", "String": "string"}
_OPERATORS: dict[str, Operator] = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}
_CARDINALITIES: dict[str, ex.Cardinality] = {
    "OneToOne": "one-to-one",
    "ManyToOne": "many-to-one",
    "OneToMany": "one-to-many",
    "ManyToMany": "many-to-many",
}
# The parser recurses, and a deep enough expression takes the whole process down: they are counted first.
_DEEPENING_LIMIT = 500
_DEEPENING = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`|\#[^\n]*)"""
    r"""|[(\[{+\-*/%^<>]|[=!]=|\b(?:and|or|unless|atan2)\b""",
    re.IGNORECASE,
)
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

pp.register_extra_functions(
    [
        pp.Function(
            name, [pp.ValueType.Matrix, pp.ValueType.Matrix, pp.ValueType.String], pp.ValueType.Vector, variadic=-1
        )
        for name in DRIFT_FUNCTIONS
    ]
)


def parse(query: str) -> ex.Expression:
    """The expression of a query; BadQuery in Prometheus' words when it does not parse or its types do not fit."""
    try:
        return _adapt(parse_text(query))
    except RecursionError:
        raise BadQuery("parse error: the expression is nested too deeply") from None


def format_query(query: str) -> str:
    """The query in Prometheus' pretty form."""
    return str(parse_text(query).prettify())


def parse_selector(text: str) -> tuple[Matcher, ...]:
    """The matchers of a series selector, as `match[]` takes them."""
    expression = parse(text)
    if not isinstance(expression, ex.VectorSelector) or expression.offset or expression.at is not None:
        raise BadQuery(f"parse error: {text!r} is no series selector")
    return expression.matchers


def parse_text(query: str) -> Any:
    """The parser's own tree; BadQuery in Prometheus' words."""
    if not query.strip():
        raise BadQuery("parse error: no expression found in input")
    deepening = sum(found["text"] is None for found in _DEEPENING.finditer(query))
    if deepening > _DEEPENING_LIMIT:
        raise BadQuery(f"parse error: more than {_DEEPENING_LIMIT} operators and brackets")
    try:
        return pp.parse(query)
    except (ValueError, OverflowError) as error:
        raise BadQuery(f"parse error: {_in_prometheus_words(str(error))}") from None
    except BaseException as error:
        _raise_unless_panic(error)
        raise BadQuery("parse error: the parser gave up on this query") from None


def _in_prometheus_words(message: str) -> str:
    """The parser writes 'name', matrix and vector where Prometheus writes "name", range vector and instant vector."""
    message = re.sub(r"'([^']*)'", r'"\1"', message)
    if message.startswith("expected type"):
        message = re.sub(r"\bmatrix\b", "range vector", re.sub(r"\bvector\b", "instant vector", message))
    return message


def _raise_unless_panic(error: BaseException) -> None:
    """The parser's Rust panics arrive as an exception that is no Exception."""
    if type(error).__name__ != "PanicException":
        raise error


def _adapt(node: Any) -> ex.Expression:
    match type(node).__name__:
        case "NumberLiteral":
            return ex.NumberLiteral(node.val)
        case "StringLiteral":
            return ex.StringLiteral(node.val)
        case "ParenExpr":
            return _adapt(node.expr)
        case "UnaryExpr":
            return ex.Negation(_adapt(node.expr))
        case "VectorSelector":
            return _vector_selector(node)
        case "MatrixSelector":
            return ex.MatrixSelector(_vector_selector(node.vector_selector), _micros(node.range))
        case "SubqueryExpr":
            inner = _adapt(node.expr)
            return ex.Subquery(inner, _micros(node.range), _micros(node.step), _micros(node.offset), at_of(node))
        case "AggregateExpr":
            return _aggregate(node)
        case "BinaryExpr":
            return _binary(node)
        case "Call":
            return _call(node)
        case name:
            raise BadQuery(f"parse error: {name} is not supported")


def _micros(duration: timedelta | None) -> int:
    return 0 if duration is None else duration // _MICROSECOND


def at_of(node: Any) -> ex.At:
    """What follows the @ of a selector or subquery, in microseconds; BadQuery when no calendar has it."""
    if node.at is None:
        return None
    match node.at.type:
        case pp.AtModifierType.Start:
            return "start"
        case pp.AtModifierType.End:
            return "end"
    try:
        instant: datetime = node.at.at
    except (OverflowError, ValueError):
        raise BadQuery("parse error: timestamp out of bounds for @ modifier") from None
    except BaseException as error:  # it panics on times before 1970
        _raise_unless_panic(error)
        raise BadQuery("parse error: timestamp out of bounds for @ modifier: before 1970") from None
    return (instant - _EPOCH) // _MICROSECOND


def _vector_selector(node: Any) -> ex.VectorSelector:
    if node.matchers.or_matchers:
        raise BadQuery('parse error: unexpected "or" in label matching, expected "," or "}"')
    matchers = [
        Matcher(one.name, _OPERATORS[str(one.op).rsplit(".", 1)[-1]], one.value) for one in node.matchers.matchers
    ]
    if node.name is not None:
        matchers.append(Matcher("__name__", "=", node.name))
    for matcher in matchers:
        if matcher.operator in ("=~", "!~"):
            try:
                match_regex(matcher.value, [""])
            except ValueError as error:
                raise BadQuery(f"parse error: {error}") from None
    return ex.VectorSelector(tuple(matchers), _micros(node.offset), at_of(node))


def _aggregate(node: Any) -> ex.Aggregate:
    modifier = node.modifier
    return ex.Aggregate(
        operator=str(node.op),
        inner=_adapt(node.expr),
        parameter=None if node.param is None else _adapt(node.param),
        labels=tuple(sorted(modifier.labels)) if modifier else (),
        without=modifier is not None and modifier.type == pp.AggModifierType.Without,
    )


def _binary(node: Any) -> ex.Binary:
    operator, left, right = str(node.op), _adapt(node.lhs), _adapt(node.rhs)
    modifier = node.modifier
    if modifier is None:
        return ex.Binary(operator, left, right)
    matching = ex.Matching(
        cardinality=_CARDINALITIES[str(modifier.card).rsplit(".", 1)[-1]],
        on=modifier.matching is not None and modifier.matching.type == pp.LabelModifierType.Include,
        labels=tuple(modifier.matching.labels) if modifier.matching else (),
        include=tuple(modifier.group_labels or ()),
        fill_left=modifier.fill_values.lhs,
        fill_right=modifier.fill_values.rhs,
    )
    fills = matching.fill_left is not None or matching.fill_right is not None
    if fills and operator in ex.SET_OPERATORS:
        raise BadQuery("parse error: filling in missing series not allowed for set operators")
    if fills and "scalar" in (ex.kind_of(left), ex.kind_of(right)):
        raise BadQuery("parse error: filling in missing series only allowed between instant vectors")
    return ex.Binary(operator, left, right, matching, modifier.return_bool)


def _call(node: Any) -> ex.Call:
    function = node.func.name
    if function in NATIVE_HISTOGRAM_FUNCTIONS:
        raise BadQuery(f"{function}() works on native histograms, and modelmeter keeps floats only")
    if function == "info":
        raise BadQuery("info() is not supported; join with group_left instead")
    return ex.Call(
        function, tuple(_adapt(one) for one in node.args), _KINDS[str(node.func.return_type).rsplit(".", 1)[-1]]
    )
