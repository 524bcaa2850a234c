"""A parsed query as the tree that Prometheus 3 answers on /api/v1/parse_query (its web/api/v1/translate_ast.go).

Durations and times are milliseconds. The parser drops a plus before a vector, so it is not in the tree.
"""

from datetime import timedelta
from typing import Any

import promql_parser as pp

from modelmeter.promql.errors import BadQuery
from modelmeter.promql.format import format_fixed
from modelmeter.promql.labels import METRIC_NAME
from modelmeter.promql.parse import at_of, parse, parse_text

Tree = dict[str, Any]

_OPERATORS = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}
_CARDINALITIES = {
    "OneToOne": "one-to-one",
    "ManyToOne": "many-to-one",
    "OneToMany": "one-to-many",
    "ManyToMany": "many-to-many",
}


def parse_tree(query: str) -> Tree:
    """The tree of a query; BadQuery as parse() raises it."""
    parse(query)  # what the parser lets pass and the evaluation refuses is refused here too
    try:
        return _tree(parse_text(query))[0]
    except RecursionError:
        raise BadQuery("parse error: the expression is nested too deeply") from None


def _name(value: object) -> str:
    return str(value).rsplit(".", 1)[-1]


def _tree(node: Any) -> tuple[Tree, bool]:
    """The tree of a node, and whether it is an instant vector."""
    match type(node).__name__:
        case "NumberLiteral":
            return {"type": "numberLiteral", "val": format_fixed(node.val)}, False
        case "StringLiteral":
            return {"type": "stringLiteral", "val": node.val}, False
        case "ParenExpr":
            inner, is_vector = _tree(node.expr)
            return {"type": "parenExpr", "expr": inner}, is_vector
        case "UnaryExpr":
            inner, is_vector = _tree(node.expr)
            return {"type": "unaryExpr", "op": "-", "expr": inner}, is_vector
        case "VectorSelector":
            return {"type": "vectorSelector", **_selector(node)}, True
        case "MatrixSelector":
            range_ = {"range": _milliseconds(node.range), "rangeExpr": None}
            return {"type": "matrixSelector", **_selector(node.vector_selector), **range_}, False
        case "SubqueryExpr":
            return {
                "type": "subquery",
                "expr": _tree(node.expr)[0],
                "range": _milliseconds(node.range),
                "rangeExpr": None,
                "step": _milliseconds(node.step),
                "stepExpr": None,
                **_moved(node),
            }, False
        case "AggregateExpr":
            return _aggregation(node), True
        case "BinaryExpr":
            return _binary(node)
        case "Call":
            return _call(node), _name(node.func.return_type) == "Vector"
        case name:
            raise BadQuery(f"parse error: {name} is not supported")


def _milliseconds(duration: timedelta | None) -> int:
    return 0 if duration is None else duration // timedelta(milliseconds=1)


def _moved(node: Any) -> Tree:
    at = at_of(node)
    return {
        "offset": _milliseconds(node.offset),
        "offsetExpr": None,
        "timestamp": at // 1000 if isinstance(at, int) else None,
        "startOrEnd": at if isinstance(at, str) else None,
    }


def _selector(node: Any) -> Tree:
    matchers = [
        {"name": one.name, "value": one.value, "type": _OPERATORS[_name(one.op)]} for one in node.matchers.matchers
    ]
    if node.name is not None:
        matchers.append({"name": METRIC_NAME, "value": node.name, "type": "="})
    return {"name": node.name or "", "matchers": matchers, **_moved(node), "anchored": False, "smoothed": False}


def _aggregation(node: Any) -> Tree:
    modifier = node.modifier
    return {
        "type": "aggregation",
        "op": str(node.op),
        "expr": _tree(node.expr)[0],
        "param": None if node.param is None else _tree(node.param)[0],
        "grouping": list(modifier.labels) if modifier else [],
        "without": modifier is not None and modifier.type == pp.AggModifierType.Without,
    }


def _binary(node: Any) -> tuple[Tree, bool]:
    left, left_is_vector = _tree(node.lhs)
    right, right_is_vector = _tree(node.rhs)
    modifier = node.modifier
    matching = None
    if left_is_vector and right_is_vector:
        labels = modifier.matching if modifier else None
        fill = modifier.fill_values if modifier else None
        matching = {
            "card": _CARDINALITIES[_name(modifier.card)] if modifier else "one-to-one",
            "labels": list(labels.labels) if labels else [],
            "on": labels is not None and labels.type == pp.LabelModifierType.Include,
            "include": list(modifier.group_labels or ()) if modifier else [],
            "fillValues": {"lhs": fill.lhs if fill else None, "rhs": fill.rhs if fill else None},
        }
    return {
        "type": "binaryExpr",
        "op": str(node.op),
        "lhs": left,
        "rhs": right,
        "matching": matching,
        "bool": modifier is not None and modifier.return_bool,
    }, left_is_vector or right_is_vector


def _call(node: Any) -> Tree:
    function = node.func
    return {
        "type": "call",
        "func": {
            "name": function.name,
            "argTypes": [_name(one).lower() for one in function.arg_types],
            "variadic": function.variadic,
            "returnType": _name(function.return_type).lower(),
        },
        "args": [_tree(one)[0] for one in node.args],
    }
