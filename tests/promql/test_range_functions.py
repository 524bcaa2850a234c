"""Functions over ranges, corner by corner."""

from math import inf, nan

import pytest

from modelmeter.promql import QueryFailed
from tests.promql.ask import GAP, instant, load, over_range, result, same


def value(query: str, values: list[float | None], minutes: float = 4) -> float:
    (found,) = instant(query, load({"m_total": values}), minutes).values()
    return found


def test_rate_is_extrapolated_to_both_ends_of_the_range() -> None:
    assert value("increase(m_total[5m])", [100, 110, 120, 130, 140]) == pytest.approx(50)
    assert value("rate(m_total[5m])", [100, 110, 120, 130, 140]) == pytest.approx(50 / 300)


def test_rate_is_extrapolated_by_half_a_gap_where_the_series_starts_within_the_range() -> None:
    assert value("increase(m_total[10m])", [100, 110, 120, 130, 140]) == pytest.approx(45)


def test_rate_never_extrapolates_a_counter_below_zero() -> None:
    assert value("increase(m_total[5m])", [0, 10, 20, 30, 40]) == pytest.approx(40)
    assert value("delta(m_total[5m])", [0, 10, 20, 30, 40]) == pytest.approx(50)


def test_rate_takes_a_drop_for_a_reset_and_delta_does_not() -> None:
    values: list[float | None] = [1000, 1010, 5, 15, 25]
    assert value("increase(m_total[5m])", values) == pytest.approx((25 - 1000 + 1010) * 5 / 4)
    assert value("delta(m_total[5m])", values) == pytest.approx((25 - 1000) * 5 / 4)


def test_a_reset_to_the_left_of_the_range_does_not_count() -> None:
    assert value("resets(m_total[2m])", [10, 0, 5, 6, 7]) == 0
    assert value("resets(m_total[10m])", [10, 0, 5, 4, 7]) == 2


@pytest.mark.parametrize("function", ["rate", "increase", "delta", "irate", "idelta", "deriv"])
def test_one_sample_is_no_growth(function: str) -> None:
    assert instant(f"{function}(m[5m])", load({"m": [1]}), 1) == {}


def test_irate_and_idelta_look_at_the_last_two_samples_only() -> None:
    assert value("irate(m_total[5m])", [0, 100, 7]) == pytest.approx(7 / 60)
    assert value("idelta(m_total[5m])", [0, 100, 7]) == -93


def test_changes_counts_neighbours_that_differ_and_nan_does_not_differ_from_nan() -> None:
    assert value("changes(m_total[10m])", [1, 1, 2, nan, nan]) == 2


def test_deriv_is_the_slope_of_the_regression_line() -> None:
    assert value("deriv(m_total[10m])", [0, 60, 120, 180, 240]) == pytest.approx(1)
    assert value("deriv(m_total[10m])", [5, 5, 5]) == 0
    assert same({"": value("deriv(m_total[10m])", [inf, inf, inf])}, {"": nan})


def test_predict_linear_starts_from_the_evaluation_time() -> None:
    assert value("predict_linear(m_total[10m], 60)", [0, 60, 120, 180, 240], 5) == pytest.approx(360)
    source = load({"m": [0, 60, 120]})
    assert over_range("predict_linear(m[5m] @ 120, 0)", source, 2, 4) == {"{}": pytest.approx([120, 180, 240])}


def test_double_exponential_smoothing_is_prometheus_recurrence() -> None:
    values, sf, tf = [3.0, 8.0, 1.0, 4.0, 9.0, 2.0, 6.0], 0.3, 0.6
    smooth, trend = values[0], values[1] - values[0]
    previous = 0.0
    for number, sample in enumerate(values[1:]):
        if number:
            trend = tf * (smooth - previous) + (1 - tf) * trend
        previous, smooth = smooth, sf * sample + (1 - sf) * (smooth + trend)
    found = value(f"double_exponential_smoothing(m_total[10m], {sf}, {tf})", list(values), 6)
    assert found == pytest.approx(smooth, rel=1e-12)


def test_double_exponential_smoothing_refuses_factors_outside_of_0_to_1() -> None:
    with pytest.raises(QueryFailed, match=r"invalid smoothing factor. Expected: 0 < sf < 1, got: 1.0"):
        value("double_exponential_smoothing(m_total[5m], 1, 0.5)", [1, 2])
    with pytest.raises(QueryFailed, match="invalid trend factor"):
        value("double_exponential_smoothing(m_total[5m], 0.5, 0)", [1, 2])


def test_sums_keep_what_float_addition_loses() -> None:
    assert value("sum_over_time(m_total[10m])", [1, 1e100, 1, -1e100]) == 2
    assert value("avg_over_time(m_total[10m])", [1, 1e100, 1, -1e100]) == 0.5


def test_the_average_of_large_values_does_not_overflow() -> None:
    assert value("avg_over_time(m_total[10m])", [1.5e308, 1.5e308, 1.2e308]) == pytest.approx(1.4e308)


def test_deviation_survives_a_large_mean() -> None:
    assert value("stdvar_over_time(m_total[10m])", [1e9 + 1, 1e9 + 2, 1e9 + 3]) == pytest.approx(2 / 3)
    assert value("stddev_over_time(m_total[10m])", [7, 7, 7]) == 0
    assert same({"": value("stddev_over_time(m_total[10m])", [inf, 1])}, {"": nan})


def test_minimum_and_maximum_skip_nan_unless_there_is_nothing_else() -> None:
    assert value("min_over_time(m_total[10m])", [nan, 3, 2, nan]) == 2
    assert value("max_over_time(m_total[10m])", [nan, 3, -inf]) == 3
    assert same({"": value("max_over_time(m_total[10m])", [nan, nan])}, {"": nan})


def test_times_of_extremes_are_those_of_the_last_such_sample() -> None:
    values: list[float | None] = [1, 5, 0, 5, 0]
    assert value("ts_of_max_over_time(m_total[10m])", values) == 180
    assert value("ts_of_min_over_time(m_total[10m])", values) == 240
    assert value("ts_of_first_over_time(m_total[10m])", [GAP, *values]) == 60
    assert value("ts_of_last_over_time(m_total[10m])", values, 8) == 240
    assert value("ts_of_max_over_time(m_total[10m])", [nan, nan, GAP]) == 60


def test_a_quantile_interpolates_and_sorts_nan_first() -> None:
    assert value("quantile_over_time(0.5, m_total[10m])", [4, 1, 3, 2]) == 2.5
    assert value("quantile_over_time(1, m_total[10m])", [nan, 1, 3]) == 3
    assert same({"": value("quantile_over_time(0, m_total[10m])", [nan, 1, 3])}, {"": nan})


def test_a_quantile_outside_of_0_to_1_is_infinite_with_a_warning() -> None:
    source = load({"m": [1, 2]})
    assert instant("quantile_over_time(-1, m[5m])", source, 1) == {"{}": -inf}
    assert instant("quantile_over_time(2, m[5m])", source, 1) == {"{}": inf}
    warnings = result("quantile_over_time(1.5, m[5m])", source, 1).warnings
    assert warnings == ["PromQL warning: quantile value should be between 0 and 1, got 1.5"]
    assert result("quantile_over_time(1.5, none[5m])", source, 1).warnings == []


def test_a_scalar_argument_may_differ_from_step_to_step() -> None:
    source = load({"m": [10, 20, 30, 40]})
    assert over_range("quantile_over_time(time() / 240, m[10m])", source, 1, 3, 1) == {"{}": [12.5, 20, 32.5]}


def test_the_median_absolute_deviation_is_nan_when_any_sample_is() -> None:
    assert value("mad_over_time(m_total[10m])", [1, 2, 9, 4, 7]) == 3
    assert same({"": value("mad_over_time(m_total[10m])", [1, nan, 9])}, {"": nan})


def test_first_and_last_keep_the_metric_name_and_the_others_drop_it() -> None:
    source = load({"m": [1, 2, 3]})
    assert instant("first_over_time(m[10m])", source, 2) == {"m": 1}
    assert instant("last_over_time(m[10m])", source, 2) == {"m": 3}
    assert instant("present_over_time(m[10m])", source, 2) == {"{}": 1}


def test_two_metrics_that_lose_their_names_collide() -> None:
    source = load({"a": [1, 2], "b": [1, 2]})
    with pytest.raises(QueryFailed, match="vector cannot contain metrics with the same labelset"):
        instant('rate({__name__=~"a|b"}[5m])', source, 1)


def test_absent_over_time_has_the_labels_that_were_asked_for() -> None:
    source = load({'m{a="x"}': [1]})
    assert instant('absent_over_time(m{a="y",b=~"z",c="1",c="2"}[5m])', source) == {"{a=y}": 1}
    assert over_range('absent_over_time(m{a="x"}[2m])', source, 0, 3) == {"{a=x}": [None, None, 1, 1]}


def test_the_rate_of_what_is_not_named_like_a_counter_is_doubtful() -> None:
    source = load({"m": [1, 2], "m_total": [1, 2]})
    text = 'PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "m"'
    assert result("rate(m[5m])", source, 1).infos == [text]
    assert result("increase(m_total[5m]) + delta(m[5m])", source, 1).infos == []


def test_a_window_of_any_length_is_counted_exactly() -> None:
    source = load({"m": [1.0] * 100})
    for minutes in (1, 2, 3, 4, 5, 31, 32, 33, 64, 65):
        assert instant(f"sum_over_time(m[{minutes}m])", source, 99) == {"{}": minutes}
