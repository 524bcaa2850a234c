"""The tree of a query, member by member as Prometheus 3.13 writes it (web/api/v1/translate_ast.go)."""

import json
from typing import Any

import msgspec
import pytest

from modelmeter.promql import BadQuery, parse_tree

MOVED = {"offset": 0, "offsetExpr": None, "timestamp": None, "startOrEnd": None}
PLAIN = {**MOVED, "anchored": False, "smoothed": False}


def matcher(name: str, value: str, kind: str = "=") -> dict[str, str]:
    return {"name": name, "value": value, "type": kind}


def vector(name: str, *matchers: dict[str, str], **more: Any) -> dict[str, Any]:
    named = [*matchers, matcher("__name__", name)] if name else [*matchers]
    return {"type": "vectorSelector", "name": name, "matchers": named, **PLAIN, **more}


def number(text: str) -> dict[str, str]:
    return {"type": "numberLiteral", "val": text}


def one_to_one(**more: Any) -> dict[str, Any]:
    fills = {"lhs": None, "rhs": None}
    return {"card": "one-to-one", "labels": [], "on": False, "include": [], "fillValues": fills, **more}


def binary(left: object, operator: str, right: object, matching: object, *, yes: bool = False) -> dict[str, Any]:
    return {"type": "binaryExpr", "op": operator, "lhs": left, "rhs": right, "matching": matching, "bool": yes}


def function(name: str, arguments: list[str], variadic: int, returns: str) -> dict[str, Any]:
    return {"name": name, "argTypes": arguments, "variadic": variadic, "returnType": returns}


TREES: dict[str, dict[str, Any]] = {
    "1": number("1"),
    "-1.5e-7": number("-0.00000015"),
    "1e22": number("10000000000000000000000"),
    "Inf": number("+Inf"),
    '"a\\"b"': {"type": "stringLiteral", "val": 'a"b'},
    "x": vector("x"),
    'x{a!~"b",c="d"}': vector("x", matcher("a", "b", "!~"), matcher("c", "d")),
    '{__name__="x"}': vector("", matcher("__name__", "x")),
    "x offset -5m @ 100.5": vector("x", offset=-300_000, timestamp=100_500),
    "x @ end()": vector("x", startOrEnd="end"),
    "-(x)": {"type": "unaryExpr", "op": "-", "expr": {"type": "parenExpr", "expr": vector("x")}},
    "x[5m] offset 1s": {
        **vector("x", offset=1000),
        "type": "matrixSelector",
        "range": 300_000,
        "rangeExpr": None,
    },
    "x[1h:] @ start()": {
        "type": "subquery",
        "expr": vector("x"),
        "range": 3_600_000,
        "rangeExpr": None,
        "step": 0,
        "stepExpr": None,
        **MOVED,
        "startOrEnd": "start",
    },
    "1 == bool 2": binary(number("1"), "==", number("2"), None, yes=True),
    "x > 2": binary(vector("x"), ">", number("2"), None),
    "x ^ y": binary(vector("x"), "^", vector("y"), one_to_one()),
    "x and ignoring(b) y": binary(
        vector("x"), "and", vector("y"), one_to_one(card="many-to-many", labels=["b"])
    ),
    "x * on(b,a) group_left(c) fill_left(2) y": binary(
        vector("x"),
        "*",
        vector("y"),
        one_to_one(
            card="many-to-one", on=True, labels=["b", "a"], include=["c"], fillValues={"lhs": 2.0, "rhs": None}
        ),
    ),
    "(x > 1) / (2 * vector(3))": binary(
        {"type": "parenExpr", "expr": binary(vector("x"), ">", number("1"), None)},
        "/",
        {
            "type": "parenExpr",
            "expr": binary(
                number("2"),
                "*",
                {"type": "call", "func": function("vector", ["scalar"], 0, "vector"), "args": [number("3")]},
                None,
            ),
        },
        one_to_one(),
    ),
    "sum without (b, a) (x)": {
        "type": "aggregation",
        "op": "sum",
        "expr": vector("x"),
        "param": None,
        "grouping": ["b", "a"],
        "without": True,
    },
    'count_values("v", x)': {
        "type": "aggregation",
        "op": "count_values",
        "expr": vector("x"),
        "param": {"type": "stringLiteral", "val": "v"},
        "grouping": [],
        "without": False,
    },
    "time()": {"type": "call", "func": function("time", [], 0, "scalar"), "args": []},
    "round(x, 2)": {
        "type": "call",
        "func": function("round", ["vector", "scalar"], 1, "vector"),
        "args": [vector("x"), number("2")],
    },
    'label_join(x, "a", "b")': {
        "type": "call",
        "func": function("label_join", ["vector", "string", "string", "string"], -1, "vector"),
        "args": [vector("x"), {"type": "stringLiteral", "val": "a"}, {"type": "stringLiteral", "val": "b"}],
    },
}  # fmt: skip


@pytest.mark.parametrize("query", [*TREES])
def test_a_query_has_this_tree(query: str) -> None:
    assert json.loads(msgspec.json.encode(parse_tree(query))) == TREES[query]


@pytest.mark.parametrize("query", ["", "x +", "sum(", 'x{a=~"("}', "rate(x)", "(" * 501, "a[5m", "info(x)"])
def test_what_does_not_parse_has_no_tree(query: str) -> None:
    with pytest.raises(BadQuery):
        parse_tree(query)
