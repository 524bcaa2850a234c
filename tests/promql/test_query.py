"""Results in Prometheus' JSON, to the letter, and the limits of a query."""

import pytest

from modelmeter.promql import BadQuery, Limits, QueryTimeout, TooMuchData, evaluate_instant, evaluate_range
from modelmeter.window import MINUTE, SECOND
from tests.promql.ask import load, result


@pytest.mark.parametrize(
    ("query", "data"),
    [
        ("1 / 0", '{"resultType":"scalar","result":[60,"+Inf"]}'),
        ('"a\\"b"', '{"resultType":"string","result":[60,"a\\"b"]}'),
        ("m", '{"resultType":"vector","result":[{"metric":{"__name__":"m","a":"x"},"value":[60,"2.5"]}]}'),
        ("nothing", '{"resultType":"vector","result":[]}'),
        ("m[1m]", '{"resultType":"matrix","result":[{"metric":{"__name__":"m","a":"x"},"values":[[60,"2.5"]]}]}'),
        (
            "m[1m:30s]",
            '{"resultType":"matrix","result":[{"metric":{"__name__":"m","a":"x"},"values":[[30,"1e+21"],[60,"2.5"]]}]}',
        ),
        ("nothing[5m]", '{"resultType":"matrix","result":[]}'),
        ("vector(NaN)", '{"resultType":"vector","result":[{"metric":{},"value":[60,"NaN"]}]}'),
    ],
)
def test_an_instant_querys_data(query: str, data: str) -> None:
    assert result(query, load({'m{a="x"}': [1e21, 2.5]}), 1).data_json().decode() == data


def test_a_range_querys_data_is_a_matrix_in_order_of_labels() -> None:
    source = load({'m{a="y"}': [1, 2], 'm{a="x"}': [None, 3.25]})
    data = evaluate_range("m", 0, 90 * SECOND + 500_000, 30 * SECOND, source).data_json().decode()
    assert data == (
        '{"resultType":"matrix","result":['
        '{"metric":{"__name__":"m","a":"x"},"values":[[60,"3.25"],[90,"3.25"]]},'
        '{"metric":{"__name__":"m","a":"y"},"values":[[0,"1"],[30,"1"],[60,"2"],[90,"2"]]}]}'
    )


def test_a_scalar_over_a_range_is_one_series_without_labels() -> None:
    data = evaluate_range("time()", 1_500_000, 2_500_000, 500_000, load({})).data_json().decode()
    assert data == ('{"resultType":"matrix","result":[{"metric":{},"values":[[1.500,"1.5"],[2,"2"],[2.500,"2.5"]]}]}')


@pytest.mark.parametrize(
    ("query", "kind"), [("m[5m]", "range vector"), ("m[5m:1m]", "range vector"), ('"text"', "string")]
)
def test_a_range_query_of_a_range_or_a_string_is_refused(query: str, kind: str) -> None:
    message = f'invalid expression type "{kind}" for range query, must be Scalar or instant Vector'
    with pytest.raises(BadQuery, match=message):
        evaluate_range(query, 0, MINUTE, SECOND, load({}))


@pytest.mark.parametrize(
    ("start", "end", "step", "message"),
    [
        (1, 0, 1, "end timestamp must not be before start time"),
        (0, 1, 0, "zero or negative query resolution step widths are not accepted"),
        (0, 11_001, 1, "exceeded maximum resolution of 11,000 points per timeseries"),
    ],
)
def test_a_range_that_makes_no_sense_is_bad_data(start: int, end: int, step: int, message: str) -> None:
    with pytest.raises(BadQuery, match=message):
        evaluate_range("1", start, end, step, load({}))


def test_11000_steps_are_allowed() -> None:
    assert evaluate_range("1", 0, 11_000, 1, load({})).times.size == 11_001


@pytest.mark.parametrize(
    "query",
    ["m[5m]", "m + m", "sum_over_time(m[10m])", "time()", "count_over_time(vector(1)[10m:1s])", "vector(1)[10y:1ms]"],
)
def test_a_query_over_the_sample_limit_fails_before_it_is_loaded(query: str) -> None:
    source = load({f'm{{a="{number}"}}': [1] * 11 for number in range(20)})
    if query == "time()":
        evaluate_instant(query, 10 * MINUTE, source, Limits(samples=50))
        return
    with pytest.raises(TooMuchData, match="query processing would load too many samples into memory"):
        evaluate_instant(query, 10 * MINUTE, source, Limits(samples=50))


def test_a_query_over_the_series_limit_says_so() -> None:
    source = load({f'm{{a="{number}"}}': [1] for number in range(20)})
    with pytest.raises(TooMuchData, match="20 series, more than the limit of 10"):
        evaluate_instant("sum(m)", 0, source, Limits(series=10))


def test_a_late_query_stops_at_the_next_check() -> None:
    def late() -> None:
        raise QueryTimeout("query timed out in expression evaluation")

    with pytest.raises(QueryTimeout) as caught:
        evaluate_instant("m", 0, load({"m": [1]}), Limits(check_time=late))
    assert (caught.value.kind, caught.value.status) == ("timeout", 503)


def test_lookback_and_default_step_can_be_set() -> None:
    source = load({"m": [1]})
    limits = Limits(lookback=2 * MINUTE, default_step=10 * SECOND)
    assert b'"result":[]' in evaluate_instant("m", 3 * MINUTE, source, limits).data_json()
    assert b'"12"' in evaluate_instant("count_over_time(m[2m:])", 2 * MINUTE - 1, source, limits).data_json()


def test_an_answer_carries_each_annotation_once() -> None:
    source = load({'m{a="1"}': [1, 2], 'm{a="2"}': [1, 2]})
    assert len(result("rate(m[5m]) + rate(m[5m])", source, 1).infos) == 1
    warnings = evaluate_range("sort(m)", 0, MINUTE, MINUTE, source).warnings
    assert warnings == [
        "PromQL warning: sort is ineffective for range queries since results are always ordered by labels"
    ]
