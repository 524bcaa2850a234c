"""`where=`: what can be written, what it means, and what is said when it cannot be read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmeter.condition import COMPARISON_LIMIT, Comparison, Condition, parse


@pytest.mark.parametrize(
    ("text", "comparisons"),
    [
        ("inference_time>100", [("inference_time", ">", 100)]),
        ("  a >= -1.5e3 and b<=.2  ", [("a", ">=", -1500), ("b", "<=", 0.2)]),
        ("and>1 and and!=2", [("and", ">", 1), ("and", "!=", 2)]),
        ('"odd name"==0 and "a\\"b" < 1', [("odd name", "==", 0), ('a"b', "<", 1)]),
        ("gpu.util/0>1", [("gpu.util/0", ">", 1)]),
        ("ü<1", [("ü", "<", 1)]),
    ],
)
def test_comparisons_are_joined_by_and(text: str, comparisons: list[tuple[str, str, float]]) -> None:
    assert parse(text) == Condition(tuple(Comparison(*one) for one in comparisons))


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "a", "a>", ">1", "a>b", "a=1", "a=>1", "a>>1", "a>1 and", "a>1 or b>1", "a>1 b>1", "a>1and b>1",
        "a>nan", "a>inf", "a>1_0", "a>1e999", '"a>1', '"">1', "a>1;drop", "(a>1)", "100<a<200",
        " and ".join(["a>1"] * (COMPARISON_LIMIT + 1)),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)


def test_a_text_that_nearly_fits_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="no comparison"):
        parse('"' + "\\" * 50_000)
    with pytest.raises(ValueError, match="no comparison"):
        parse("a" * 50_000 + " " * 50_000)


@given(st.lists(st.floats(allow_infinity=False), max_size=20), st.floats(allow_nan=False, allow_infinity=False))
def test_an_absent_value_satisfies_no_comparison(values: list[float], number: float) -> None:
    column = np.array(values, np.float64)
    for operator in (">", ">=", "<", "<=", "==", "!="):
        held = Comparison("a", operator, number).holds(column).tolist()
        assert held == [not np.isnan(one) and eval(f"{one!r} {operator} {number!r}") for one in values]
