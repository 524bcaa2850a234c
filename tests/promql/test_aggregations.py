"""Aggregations, corner by corner."""

from math import inf, nan

import pytest

from modelmeter.promql import QueryFailed
from tests.promql.ask import GAP, instant, load, over_range, result, same
from tests.promql.memory_source import MemorySource


def fleet() -> MemorySource:
    return load(
        {
            'm{env="dev",v="1"}': [1, 1],
            'm{env="dev",v="2"}': [4, 1],
            'm{env="prod",v="1"}': [2, 9],
            'm{v="1"}': [7, GAP],
        }
    )


def test_by_keeps_the_named_labels_and_a_missing_one_is_a_group_too() -> None:
    assert instant("sum by (env) (m)", fleet(), 0) == {"{env=dev}": 5, "{env=prod}": 2, "{}": 7}


def test_without_drops_the_named_labels_and_the_metric_name() -> None:
    assert instant("sum without (v) (m)", fleet(), 0) == {"{env=dev}": 5, "{env=prod}": 2, "{}": 7}
    assert len(instant("sum without () (m)", fleet(), 0)) == 4


def test_by_can_keep_the_metric_name() -> None:
    assert instant("count by (__name__) (m)", fleet(), 0) == {"m": 4}


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("sum", 14),
        ("avg", 3.5),
        ("min", 1),
        ("max", 7),
        ("count", 4),
        ("group", 1),
        ("stdvar", 5.25),
        ("stddev", 5.25**0.5),
    ],
)
def test_a_reduction_takes_all_series_of_the_group(operator: str, expected: float) -> None:
    assert same(instant(f"{operator}(m)", fleet(), 0), {"{}": expected})


def test_a_group_is_there_only_where_one_of_its_series_is() -> None:
    source = load({'m{a="1"}': [1, *[GAP] * 6, 2], 'm{a="2"}': [GAP, 3]})
    assert over_range("sum by (a) (m)", source, 0, 7) == {
        "{a=1}": [1, 1, 1, 1, 1, None, None, 2],
        "{a=2}": [None, 3, 3, 3, 3, 3, None, None],
    }


def test_nan_spreads_through_sums_but_not_through_minimum_and_maximum() -> None:
    source = load({'m{a="1"}': [nan], 'm{a="2"}': [3]})
    assert same(instant("sum(m)", source, 0), {"{}": nan})
    assert instant("min(m) + max(m)", source, 0) == {"{}": 6}
    assert same(instant('max(m{a="1"})', source, 0), {"{}": nan})


def test_topk_is_in_order_and_keeps_all_labels() -> None:
    assert list(instant("topk(3, m)", fleet(), 0).items()) == [
        ("m{v=1}", 7),
        ("m{env=dev,v=2}", 4),
        ("m{env=prod,v=1}", 2),
    ]
    assert instant("bottomk by (env) (1, m)", fleet(), 0) == {"m{env=dev,v=1}": 1, "m{env=prod,v=1}": 2, "m{v=1}": 7}


def test_topk_takes_nan_only_for_want_of_anything_else() -> None:
    source = load({'m{a="1"}': [nan], 'm{a="2"}': [-inf], 'm{a="3"}': [3]})
    assert list(instant("topk(2, m)", source, 0)) == ["m{a=3}", "m{a=2}"]
    assert list(instant("bottomk(2, m)", source, 0)) == ["m{a=2}", "m{a=3}"]
    assert list(instant("topk(5, m)", source, 0)) == ["m{a=3}", "m{a=2}", "m{a=1}"]


def test_k_may_change_from_step_to_step() -> None:
    source = load({f'm{{a="{number}"}}': [number] * 4 for number in range(4)})
    found = over_range("topk(scalar(vector(time() / 60)), m)", source, 0, 3)
    assert [sum(values[step] is not None for values in found.values()) for step in range(4)] == [0, 1, 2, 3]


def test_a_k_that_is_no_number_fails_and_one_below_1_gives_nothing() -> None:
    assert instant("topk(0, m)", fleet(), 0) == instant("limitk(-3, m)", fleet(), 0) == {}
    with pytest.raises(QueryFailed, match="Parameter value is NaN"):
        instant("topk(NaN, m)", fleet(), 0)
    with pytest.raises(QueryFailed, match="overflows int64"):
        instant("topk(1e30, m)", fleet(), 0)


def test_limitk_takes_k_of_each_group() -> None:
    assert len(instant("limitk(2, m)", fleet(), 0)) == 2
    assert len(instant("limitk by (env) (1, m)", fleet(), 0)) == 3


def test_limit_ratio_and_its_complement_are_all_series_once() -> None:
    source = load({f'm{{a="{number}"}}': [number] for number in range(300)})
    some, others = instant("limit_ratio(0.3, m)", source, 0), instant("limit_ratio(-0.7, m)", source, 0)
    assert 50 < len(some) < 130
    assert not some.keys() & others.keys()
    assert len(some) + len(others) == 300
    assert result("limit_ratio(1.5, m)", source, 0).warnings == [
        "PromQL warning: ratio value should be between -1 and 1, got 1.5, capping to 1"
    ]


def test_count_values_puts_the_value_into_a_label() -> None:
    source = load({'m{a="1"}': [0.5, 1e22], 'm{a="2"}': [0.5, nan], 'm{a="3"}': [-0.0, nan], 'm{a="4"}': [0.0, inf]})
    assert instant('count_values("v", m)', source, 0) == {"{v=0.5}": 2, "{v=-0}": 1, "{v=0}": 1}
    assert instant('count_values("v", m)', source, 1) == {"{v=10000000000000000000000}": 1, "{v=NaN}": 2, "{v=+Inf}": 1}
    assert instant('count_values by (a) ("v", m)', source, 0)["{a=3,v=-0}"] == 1
    assert instant('count_values without (a) ("v", m)', source, 0)["{v=0.5}"] == 2
    assert over_range('count_values("v", m)', source, 0, 1)["{v=0.5}"] == [2, None]


def test_a_quantile_over_series_interpolates() -> None:
    assert instant("quantile(0.5, m)", fleet(), 0) == {"{}": 3}
    assert instant("quantile by (env) (1, m)", fleet(), 0) == {"{env=dev}": 4, "{env=prod}": 2, "{}": 7}
    assert instant("quantile(1.5, m)", fleet(), 0) == {"{}": inf}
    assert same(instant("quantile(NaN, m)", fleet(), 0), {"{}": nan})
    assert len(result("quantile(-1, m)", fleet(), 0).warnings) == 1


def test_groups_of_every_size_are_summed() -> None:
    sizes = (1, 2, 3, 4, 5, 31, 32, 33, 100)
    source = load({f'm{{g="{size}",i="{number}"}}': [1] for size in sizes for number in range(size)})
    assert instant("sum by (g) (m)", source, 0) == {f"{{g={size}}}": size for size in sizes}
