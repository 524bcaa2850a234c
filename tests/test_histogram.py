"""Histograms over time: exact counts between edges, few enough bins, nothing lost."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmeter import distance
from modelmeter.errors import Unanswerable
from modelmeter.reader import Histogram, Limits, Question, Reader
from modelmeter.reader.histogram import LEAST_BINS, merge_bins
from modelmeter.window import DAY, HOUR, MINUTE, Span
from tests.history import NOON, Storing, event, message_of, random_events, send, store


@pytest.fixture
def reader(database_url: str) -> Iterator[Reader]:
    reader = Reader(database_url)
    yield reader
    reader.close()


def ask(reader: Reader, question: Question, bins: int = 64, limits: Limits | None = None) -> Histogram:
    with reader.asking(question, limits or Limits()) as asked:
        return asked.histogram(bins)


def place_of(value: float, edges: Sequence[float]) -> int:
    """The bin of a value, by the words of the documentation."""
    last = len(edges) - 2
    for number, (low, high) in enumerate(pairwise(edges)):
        if value > 0 and low < value <= high:
            return number
        if value < 0 and low <= value < high:
            return number
        if value == 0 and (low < 0 < high or (low == 0 and number == 0) or (high == 0 and number == last)):
            return number
    raise AssertionError(f"{value} lies in no bin of {edges}")


@given(
    st.lists(
        st.one_of(
            st.sampled_from([0.0, 1.0, -1.0, 2.0, 0.5, 1e300, -1e300, 1e-300]),
            st.floats(min_value=-1e6, max_value=1e6).filter(lambda value: value == 0 or abs(value) > 1e-300),
        ),
        min_size=1,
        max_size=60,
    ),
    st.sampled_from([LEAST_BINS, 16, 64, 100_000]),
)
def test_every_value_lies_between_the_edges_of_its_bin(values: list[float], limit: int) -> None:
    used, place = np.unique(distance.bin_of(np.array(values)), return_inverse=True)
    edges, number = merge_bins(used, limit)
    assert (np.diff(edges) > 0).all()
    assert 1 <= edges.size - 1 <= limit
    assert [int(one) for one in number[place]] == [place_of(value, edges.tolist()) for value in values]


def test_bins_are_merged_no_more_than_needed() -> None:
    used = np.arange(distance.bin_of(np.array([1.01]))[0], distance.bin_of(np.array([16.0]))[0] + 1)
    assert used.size == 128
    for limit, size in ((128, 128), (127, 64), (64, 64), (63, 32), (8, 8)):
        edges, _ = merge_bins(used, limit)
        assert edges.size - 1 == size
        assert edges[0] == 1
        assert edges[-1] == 16


@pytest.mark.parametrize("seed", range(2))
def test_counts_are_those_of_the_raw_events(database_url: str, reader: Reader, seed: int) -> None:
    rng = np.random.default_rng(seed)
    events = random_events(rng, 800)
    store(database_url, *events)
    for metric in ("drift", "latency", "score"):
        for step, bins in ((None, 64), (DAY, 8), (HOUR, 500), (7 * MINUTE, 30)):
            span = Span(NOON - DAY + 17, NOON + DAY - 3)
            question = Question("A", None, span, {}, metrics=(metric,), step=step)
            found = ask(reader, question, bins)
            wanted: dict[int, list[float]] = {}
            for one in events:
                if dict(one.labels)["name"] == "A" and metric in one.metrics and span.start <= one.timestamp < span.end:
                    window = one.timestamp - one.timestamp % step if step else 0
                    wanted.setdefault(window, []).append(one.metrics[metric])
            assert found.window.tolist() == sorted(wanted)
            edges = found.edges.tolist()
            for window, counts in zip(found.window.tolist(), found.counts, strict=True):
                places = [place_of(value, edges) for value in wanted[window]]
                assert counts.tolist() == np.bincount(places, minlength=len(edges) - 1).tolist()


def test_a_histogram_over_the_limit_is_refused(database_url: str, reader: Reader) -> None:
    with Storing(database_url) as storing:
        events = [event(NOON + n * MINUTE, drift=1.1**n) for n in range(60)]
        send(database_url, message_of(*events))
        storing.run()
    question = Question("Mistral", "v1", Span(NOON, NOON + HOUR), {}, metrics=("drift",), step=MINUTE)
    limits = replace(Limits(), points=1000)
    assert ask(reader, question, 16, limits).counts.sum() == 60
    with pytest.raises(Unanswerable, match=r"bins: these are 60 windows of \d+ bins, over the limit of 1,000"):
        ask(reader, question, 64, limits)


def test_no_events_have_no_bins(database_url: str, reader: Reader) -> None:
    store(database_url, event(NOON, drift=1))
    question = Question("Mistral", "v1", Span(NOON + 1, NOON + HOUR), {}, metrics=("drift",), step=MINUTE)
    found = ask(reader, question)
    assert (found.window.tolist(), found.edges.tolist(), found.counts.shape) == ([], [], (0, 0))
