"""Binary operators and vector matching, corner by corner."""

from math import inf, nan

import pytest

from modelmeter.promql import QueryFailed
from tests.promql.ask import GAP, instant, load, over_range, same
from tests.promql.memory_source import MemorySource


def pairs() -> MemorySource:
    return load(
        {
            'a{k="x"}': [1, 5],
            'a{k="y"}': [2, 6],
            'b{k="x"}': [10, 50],
            'b{k="z"}': [30, 70],
            'info{k="x",team="t1"}': [1, 1],
            'info{k="y",team="t2"}': [1, 1],
            'many{k="x",i="1"}': [3, 3],
            'many{k="x",i="2"}': [4, 4],
        }
    )


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("7 % 4", 3),
        ("-7 % 4", -3),
        ("7.5 % -2", 1.5),
        ("5 % Inf", 5),
        ("1 / 0", inf),
        ("-1 / 0", -inf),
        ("0 / 0", nan),
        ("1 % 0", nan),
        ("2 ^ -1", 0.5),
        ("-2 ^ 2", -4),
        ("2 ^ 3 ^ 2", 512),
        ("NaN ^ 0", 1),
        ("1 atan2 -1", 2.356194490192345),
        ("NaN == bool NaN", 0),
        ("NaN != bool NaN", 1),
        ("2 >= bool 2", 1),
        ("1 + 2 * 3 - 4 / 2", 5),
        ("Inf - Inf", nan),
    ],
)
def test_scalars(query: str, expected: float) -> None:
    assert same(instant(query, load({})), {"scalar": expected})


def test_series_match_on_all_labels_but_the_name_and_the_result_has_none() -> None:
    assert instant("a + b", pairs(), 0) == {"{k=x}": 11}


def test_a_comparison_filters_and_keeps_the_left_values_and_the_name() -> None:
    assert instant("a < b", pairs(), 0) == {"a{k=x}": 1}
    assert instant("a > 1", pairs(), 0) == {"a{k=y}": 2}
    assert instant("1 < a", pairs(), 0) == {"a{k=y}": 2}
    assert over_range("a > 4", pairs(), 0, 1) == {"a{k=x}": [None, 5], "a{k=y}": [None, 6]}


def test_bool_gives_0_and_1_and_drops_the_name() -> None:
    assert instant("a > bool 1", pairs(), 0) == {"{k=x}": 0, "{k=y}": 1}
    assert instant("a == bool on(k) b", pairs(), 0) == {"{k=x}": 0}


def test_nan_equals_nothing_but_is_unequal() -> None:
    source = load({"m": [nan]})
    assert instant("m == m", source, 0) == {}
    assert same(instant("m != m", source, 0), {"m": nan})


def test_on_and_ignoring_choose_the_labels_that_match_and_the_labels_of_the_result() -> None:
    assert instant('many{i="1"} + on(k) a', pairs(), 0) == {"{k=x}": 4}
    assert instant('many{i="1"} + ignoring(i) a', pairs(), 0) == {"{k=x}": 4}
    assert instant("sum(a) + on() sum(b)", pairs(), 0) == {"{}": 43}


def test_group_left_keeps_the_many_sides_labels_and_takes_over_the_named_ones() -> None:
    assert instant("many * on(k) group_left(team) info", pairs(), 0) == {
        "{i=1,k=x,team=t1}": 3,
        "{i=2,k=x,team=t1}": 4,
    }
    assert instant("info * on(k) group_right(team) many", pairs(), 0) == {
        "{i=1,k=x,team=t1}": 3,
        "{i=2,k=x,team=t1}": 4,
    }


def test_group_right_does_not_turn_the_operator_around() -> None:
    assert instant("a - on(k) group_right many", pairs(), 0) == {"{i=1,k=x}": -2, "{i=2,k=x}": -3}
    assert instant("a < on(k) group_right many", pairs(), 0) == {"many{i=1,k=x}": 1, "many{i=2,k=x}": 1}


def test_group_left_removes_a_label_that_the_one_side_lacks() -> None:
    source = load({'m{k="x",team="old"}': [1], 'info{k="x"}': [2]})
    assert instant("m * on(k) group_left(team) info", source, 0) == {"{k=x}": 2}


def test_two_series_on_the_one_side_are_named_in_the_error() -> None:
    message = (
        r'found duplicate series for the match group \{k="x"\} on the right hand-side of the operation: '
        r'\[\{__name__="many", i="1", k="x"\}, \{__name__="many", i="2", k="x"\}\];many-to-many matching not allowed: '
        r"matching labels must be unique on one side"
    )
    with pytest.raises(QueryFailed, match=message):
        instant("a + on(k) many", pairs(), 0)
    with pytest.raises(QueryFailed, match="on the left hand-side"):
        instant("many + on(k) group_right a", pairs(), 0)


def test_two_series_on_the_left_need_group_left() -> None:
    with pytest.raises(QueryFailed, match="many-to-one matching must be explicit"):
        instant("many + on(k) a", pairs(), 0)
    with pytest.raises(QueryFailed, match="many-to-one matching must be explicit"):
        instant("many == on(k) a", pairs(), 0)


def test_grouping_labels_must_leave_the_results_distinct() -> None:
    source = load({'m{k="x",i="1"}': [1], 'm{k="x",i="2"}': [1], 'info{k="x",i="3"}': [1]})
    with pytest.raises(QueryFailed, match="grouping labels must ensure unique matches"):
        instant("m * on(k) group_left(i) info", source, 0)


def test_series_that_are_never_there_together_may_share_a_match() -> None:
    gap: list[float | None] = [GAP] * 6
    source = load({'one{i="1"}': [1], 'one{i="2"}': [*gap, 2], 'm{v="q"}': [10] * 7})
    found = over_range("m * on() one", source, 0, 6, 6)
    assert found == {"{}": [10, 20]}


def test_fill_stands_in_for_the_missing_side() -> None:
    assert instant("a + fill(100) b", pairs(), 0) == {"{k=x}": 11, "{k=y}": 102, "{k=z}": 130}
    assert instant("a + fill_left(100) b", pairs(), 0) == {"{k=x}": 11, "{k=z}": 130}
    assert instant("a - on(k) fill_right(100) b", pairs(), 0) == {"{k=x}": -9, "{k=y}": -98}
    assert instant("nothing + fill(1) b", pairs(), 0) == {"{k=x}": 11, "{k=z}": 31}


def test_and_or_unless_work_on_presence() -> None:
    assert instant("a and b", pairs(), 0) == {"a{k=x}": 1}
    assert instant("a unless b", pairs(), 0) == {"a{k=y}": 2}
    assert instant("a or b", pairs(), 0) == {"a{k=x}": 1, "a{k=y}": 2, "b{k=z}": 30}
    assert instant("a and on() nothing", pairs(), 0) == {}
    assert len(instant("a or on() b", pairs(), 0)) == 2


def test_set_operators_decide_step_by_step() -> None:
    source = load({"a": [1, *[GAP] * 5, 1], "b": [2] * 7})
    assert over_range("b unless on() a", source, 0, 6) == {"b": [None] * 5 + [2, None]}
    assert over_range("a or on() b", source, 0, 6) == {"a": [1, 1, 1, 1, 1, None, 1], "b": [None] * 5 + [2, None]}


def test_names_that_are_dropped_must_leave_distinct_series() -> None:
    with pytest.raises(QueryFailed, match="same labelset"):
        instant('{__name__=~"a|b"} + 1', pairs(), 0)
    with pytest.raises(QueryFailed, match="same labelset"):
        instant('-{__name__=~"a|b"}', pairs(), 0)
