"""Functions of instant vectors and scalars, corner by corner."""

from math import inf, nan, pi

import pytest

from modelmeter.promql import QueryFailed
from modelmeter.window import MINUTE
from tests.promql.ask import GAP, instant, load, over_range, result, same
from tests.promql.memory_source import MemorySource


def one(value: float) -> MemorySource:
    return load({'m{a="x"}': [value]})


@pytest.mark.parametrize(
    ("query", "value", "expected"),
    [
        ("round(m)", 2.5, 3),
        ("round(m)", -2.5, -2),
        ("round(m, 0.1)", 1.25, 1.3),
        ("round(m, 10)", 14, 10),
        ("clamp(m, 2, 3)", 5, 3),
        ("clamp_min(m, 7)", 5, 7),
        ("clamp_max(m, 3)", 5, 3),
        ("clamp(m, NaN, 3)", 5, nan),
        ("sgn(m)", -3, -1),
        ("sgn(m)", nan, nan),
        ("ln(m)", 0, -inf),
        ("ln(m)", -1, nan),
        ("sqrt(m)", -1, nan),
        ("exp(m)", 1000, inf),
        ("acosh(m)", 0.5, nan),
        ("deg(m)", pi, 180),
        ("rad(m)", 180, pi),
        ("abs(m)", -0.5, 0.5),
        ("floor(m)", -0.5, -1),
        ("log2(m)", 8, 3),
        ("day_of_week(m)", 0, 4),
        ("year(m)", 951_782_400, 2000),
        ("month(m)", 951_782_400, 2),
        ("day_of_month(m)", 951_782_400, 29),
        ("days_in_month(m)", 951_782_400, 29),
        ("days_in_month(m)", 4_105_900_800, 28),
        ("day_of_year(m)", 978_220_800, 366),
        ("hour(m)", 86_399, 23),
        ("minute(m)", -60, 59),
        ("year(m)", nan, nan),
    ],
)
def test_a_function_of_one_value(query: str, value: float, expected: float) -> None:
    assert same(instant(query, one(value), 0), {"{a=x}": expected})


def test_clamp_with_a_minimum_above_the_maximum_is_empty() -> None:
    assert instant("clamp(m, 3, 2)", one(1), 0) == {}


def test_dates_without_an_argument_are_those_of_the_evaluation_time() -> None:
    assert instant("minute()", load({}), 7.5) == {"{}": 7}


def test_scalar_is_nan_unless_there_is_exactly_one_series() -> None:
    source = load({'m{a="1"}': [1, 1], 'm{a="2"}': [2, GAP]})
    assert same(instant("scalar(m)", source, 0), {"scalar": nan})
    assert same(instant("scalar(nothing)", source, 0), {"scalar": nan})
    assert instant('scalar(m{a="2"})', source, 0) == {"scalar": 2}


def test_absent_has_the_labels_that_were_matched_by_equality() -> None:
    assert instant('absent(n{a="x",b=~"y",c!="z"})', one(1), 0) == {"{a=x}": 1}
    assert instant("absent(m)", one(1), 0) == {}
    assert instant('absent(sum(n{a="x"}))', one(1), 0) == {"{}": 1}


def test_timestamp_is_the_samples_own_unless_it_was_computed() -> None:
    source = load({"m": [1, 2]})
    assert instant("timestamp(m)", source, 3) == {"{}": 60}
    assert instant("timestamp((m))", source, 3) == {"{}": 60}
    assert instant("timestamp(m + 0)", source, 3) == {"{}": 180}
    assert over_range("timestamp(m @ 0)", source, 0, 2) == {"{}": [0, 0, 0]}


def test_label_replace_fills_groups_and_leaves_what_does_not_match() -> None:
    source = load({'m{a="model-7"}': [1], 'm{a="other"}': [2]})
    assert instant('label_replace(m, "id", "n${1}", "a", "model-(.*)")', source, 0) == {
        "m{a=model-7,id=n7}": 1,
        "m{a=other}": 2,
    }
    assert instant('label_replace(m{a="other"}, "a", "", "a", "o.*")', source, 0) == {"m": 2}
    assert instant('label_replace(m{a="other"}, "__name__", "x", "none", "")', source, 0) == {"x{a=other}": 2}
    with pytest.raises(QueryFailed, match="invalid regular expression in label_replace"):
        instant('label_replace(m, "a", "", "a", "(")', source, 0)
    with pytest.raises(QueryFailed, match="same labelset"):
        instant('label_replace(m, "a", "same", "a", ".*")', source, 0)


def test_label_join_joins_missing_labels_as_empty() -> None:
    assert instant('label_join(m, "to", "-", "a", "none", "a")', one(1), 0) == {"m{a=x,to=x--x}": 1}
    assert instant('label_join(m, "a", "-")', one(1), 0) == {"m": 1}


def test_sort_puts_nan_last_both_ways_and_does_nothing_over_a_range() -> None:
    source = load({'m{a="1"}': [nan], 'm{a="2"}': [3], 'm{a="3"}': [1]})
    assert list(instant("sort(m)", source, 0)) == ["m{a=3}", "m{a=2}", "m{a=1}"]
    assert list(instant("sort_desc(m)", source, 0)) == ["m{a=2}", "m{a=3}", "m{a=1}"]
    assert list(over_range("sort_desc(m)", source, 0, 1)) == ["m{a=1}", "m{a=2}", "m{a=3}"]


def test_sort_by_label_is_natural() -> None:
    source = load({f'm{{v="{version}",w="q"}}': [1] for version in ("v10", "v2", "v1", "10", "9")})
    assert list(instant('sort_by_label(m, "w", "v")', source, 0)) == [
        f"m{{v={version},w=q}}" for version in ("9", "10", "v1", "v2", "v10")
    ]
    assert next(iter(instant('sort_by_label_desc(m, "v")', source, 0))) == "m{v=v10,w=q}"


def test_time_vector_pi_and_the_querys_own_span() -> None:
    source = load({})
    assert instant("time()", source, 2) == {"scalar": 120}
    assert instant("vector(pi())", source) == {"{}": pi}
    assert over_range("end() - start() + step()", source, 1, 3, 1) == {"{}": [180, 180, 180]}
    assert instant("step() + range() + max_of(1, 2) + min_of(1, 2)", source) == {"scalar": 3}


def buckets() -> MemorySource:
    return load(
        {
            'h_bucket{le="1"}': [2, 2],
            'h_bucket{le="2"}': [6, 1],
            'h_bucket{le="+Inf"}': [10, 10],
            'h_bucket{le="what"}': [1],
        }
    )


def test_a_classic_histograms_quantile_is_linear_in_its_bucket() -> None:
    assert instant("histogram_quantile(0.4, h_bucket)", buckets(), 0) == {"{}": 1.5}
    assert instant("histogram_quantile(0.9, h_bucket)", buckets(), 0) == {"{}": 2}
    assert instant("histogram_quantile(0, h_bucket)", buckets(), 0) == {"{}": 0}
    assert instant("histogram_fraction(0, 1.5, h_bucket)", buckets(), 0) == {"{}": 0.4}
    assert instant('histogram_quantiles(h_bucket, "q", 0.4, 0.9)', buckets(), 0) == {"{q=0.4}": 1.5, "{q=0.9}": 2}


def test_doubtful_buckets_are_reported() -> None:
    found = result("histogram_quantile(0.4, h_bucket)", buckets(), 1)
    assert found.warnings == ['PromQL warning: bucket label "le" is missing or has a malformed value of "what"']
    assert "needed to be fixed for monotonicity" in found.infos[0]


def test_a_histogram_without_an_infinite_bucket_has_no_quantile() -> None:
    source = load({'h_bucket{le="1"}': [2], 'h_bucket{le="2"}': [2]})
    assert same(instant("histogram_quantile(0.5, h_bucket)", source, 0), {"{}": nan})


def test_drift_of_equal_ranges_is_zero_and_of_apart_ones_one() -> None:
    values = [float(number % 7) for number in range(20)]
    source = load({'m{v="1"}': values, 'm{v="2"}': [value + 100 for value in values]})
    assert instant('ks(m{v="1"}[10m], m{v="1"}[10m])', source, 19) == {"{v=1}": 0}
    assert instant('ks(m{v="1"}[10m], m{v="2"}[10m])', source, 19) == {}
    assert instant('ks(m{v="1"}[10m], m{v="2"}[10m], "v")', source, 19) == {"{}": pytest.approx(1)}
    assert instant('js(m{v="1"}[10m], m{v="2"}[10m:1m], "v")', source, 19) == {"{}": pytest.approx(1)}
    found = instant('wasserstein(m{v="1"}[14m], m{v="2"}[14m], "v")', source, 19)
    assert found["{}"] == pytest.approx(100, rel=0.011)


def test_drift_refuses_two_series_for_one() -> None:
    source = load({'m{v="1"}': [1, 2], 'm{v="2"}': [1, 2]})
    with pytest.raises(QueryFailed, match="must match one series"):
        instant('psi(m[10m], m[10m], "v")', source, 1)


def test_drift_of_a_range_of_steps_moves_with_the_window() -> None:
    source = load({"m": [1.0] * 10 + [50.0] * 10})
    found = over_range("ks(m[5m], m[5m] offset 5m)", source, 9, 19, 5)
    assert found == {"{}": pytest.approx([0, 1, 0])}


def test_a_value_that_is_not_finite_is_in_no_histogram() -> None:
    source = MemorySource()
    source.add({"__name__": "m"}, [(MINUTE, nan), (MINUTE + 1, inf)])
    assert instant("psi(m[5m], m[5m])", source, 1) == {}
