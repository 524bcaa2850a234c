"""The fast path and the raw path give the same: folded windows against raw samples."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelmeter.promql import evaluate_instant, evaluate_range
from modelmeter.window import SECOND
from tests.promql.memory_source import MemorySource
from tests.promql.test_prometheus_agrees import difference

QUERIES = [
    *(
        f"{name}_over_time(m[{{range}}] {{shift}})"
        for name in ("avg", "sum", "min", "max", "count", "stddev", "stdvar")
    ),
    *(f"{name}_over_time(m[{{range}}] {{shift}})" for name in ("first", "last", "present", "absent")),
    *(f"ts_of_{name}_over_time(m[{{range}}] {{shift}})" for name in ("first", "last", "min")),
    "quantile_over_time(0.9, m[{range}] {shift})",
    "quantile_over_time(time() % 2, m[{range}] {shift})",
    "m {shift}",
    "timestamp(m {shift})",
    "sum(m {shift}) - rate(m[{range}])",
    *(f'{name}(m[{{range}}] {{shift}}, m{{{{i="0"}}}}[{{range}}])' for name in ("psi", "ks", "js", "wasserstein")),
    'wasserstein(m{{i="0"}}[{range}], m{{i="1"}}[{range}] {shift}, "i")',
]
points = st.lists(st.tuples(st.integers(0, 600), st.floats(-1e6, 1e6)), unique_by=lambda point: point[0], max_size=40)


@settings(max_examples=60, deadline=None)
@given(
    series=st.lists(points, min_size=1, max_size=3),
    query=st.sampled_from(QUERIES),
    range_=st.sampled_from(["7s", "1m", "5m"]),
    shift=st.sampled_from(["", "offset 20s", "offset -20s", "@ 300", "@ end() offset 1m"]),
)
def test_folded_windows_and_raw_samples_give_the_same(
    series: list[list[tuple[int, float]]], query: str, range_: str, shift: str
) -> None:
    text = query.format(range=range_, shift=shift)
    answers = []
    for folds in (False, True):
        source = MemorySource(folds=folds)
        for number, own in enumerate(series):
            source.add({"__name__": "m", "i": str(number)}, [(at * SECOND, value) for at, value in own])
        instant = evaluate_instant(text, 400 * SECOND, source)
        over_range = evaluate_range(text, 100 * SECOND, 700 * SECOND, 37 * SECOND, source)
        answers.append((json.loads(instant.data_json()), json.loads(over_range.data_json())))
    for raw, folded in zip(*answers, strict=True):
        assert difference(folded, raw) is None, text


def test_a_query_served_from_folds_reads_no_raw_samples() -> None:
    source = MemorySource(folds=True)
    source.add({"__name__": "m"}, [(SECOND, 1.0)])
    evaluate_instant("avg_over_time(m[1m]) + m", SECOND, source)
    assert source.selects == 0
    evaluate_instant("rate(m[1m])", SECOND, source)
    assert source.selects == 1


@pytest.mark.parametrize("query", ["rate(m[1m]) / rate(m[1m])", "sum(rate(m[1m])) + max(rate(m[1m]))"])
def test_the_same_selector_twice_in_a_query_is_fetched_once(query: str) -> None:
    source = MemorySource()
    source.add({"__name__": "m"}, [(SECOND, 1.0), (2 * SECOND, 2.0)])
    evaluate_instant(query, 2 * SECOND, source)
    assert source.selects == 1
