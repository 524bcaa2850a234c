"""Answers against NumPy over the raw events, at every kind of edge."""

from collections.abc import Iterator

import numpy as np
import pytest

from modelmeter.compactor import Compactor
from modelmeter.config import Config
from modelmeter.errors import NotFound
from modelmeter.reader import Event, Reader
from modelmeter.window import DAY, HOUR, LATEST, SECOND, Span
from tests.history import (
    NOON,
    Storing,
    bits,
    check_models,
    check_stats,
    check_summary,
    event,
    labels_of,
    matching,
    message_of,
    random_events,
    random_span,
    send,
    store,
)

ALL = Span(0, LATEST)


@pytest.fixture
def reader(database_url: str) -> Iterator[Reader]:
    reader = Reader(database_url)
    yield reader
    reader.close()


def test_a_span_that_begins_just_after_the_hour_leaves_out_what_came_before(database_url: str, reader: Reader) -> None:
    events = [event(NOON + 1 * SECOND, drift=1), event(NOON + 40 * SECOND, drift=2), event(NOON + HOUR, drift=3)]
    store(database_url, *events)
    span = Span(NOON + 30 * SECOND, NOON + 2 * HOUR)
    check_summary(reader, events, "Mistral", "v1", span, {})
    compactor = Compactor(Config(database_url=database_url))
    while compactor.run_once(NOON + DAY):
        pass
    compactor.close()
    check_summary(reader, events, "Mistral", "v1", span, {})


@pytest.mark.parametrize("seed", range(3))
def test_stats_of_random_spans_and_labels_are_those_of_numpy(database_url: str, reader: Reader, seed: int) -> None:
    rng = np.random.default_rng(seed)
    events = random_events(rng, 1500)
    store(database_url, *events)
    check_models(reader, events)
    for _ in range(60):
        labels = {"env": "prod"} if rng.random() < 0.3 else {}
        version = None if rng.random() < 0.2 else "v1"
        check_summary(reader, events, "A", version, random_span(rng), labels)


def test_a_span_is_half_open_to_the_microsecond(database_url: str, reader: Reader) -> None:
    for border in (NOON, NOON + 30 * SECOND + 7, NOON - NOON % DAY):
        labels = labels_of(version=f"v{border}")
        events = [event(border + offset, labels=labels, drift=offset) for offset in (-1, 0, 1)]
        store(database_url, *events)
        for start in (-2, -1, 0, 1, 2):
            for end in (-1, 0, 1, 2, 3):
                span = Span(border + start, border + end)
                found = reader.stats("Mistral", f"v{border}", span, {}, None, ())
                assert found.events == len([x for x in (-1, 0, 1) if start <= x < end]), (border, start, end)


def test_an_empty_span_has_no_events(database_url: str, reader: Reader) -> None:
    store(database_url, event(NOON), event(NOON + 1))
    for span in (Span(NOON, NOON), Span(NOON + 1, NOON + 1), Span(NOON + HOUR, NOON + DAY), Span(NOON + 2, NOON)):
        assert reader.stats("Mistral", "v1", span, {}, None, (0.5,)) == reader.stats(
            "Mistral", "v1", Span(0, 0), {}, None, ()
        )
        assert reader.events("Mistral", "v1", span, {}, 10) == []


@pytest.mark.parametrize("span", [ALL, Span(-(10**17), 10**18), Span(LATEST - 1, LATEST), Span(0, 1)])
def test_a_span_may_reach_as_far_as_a_calendar_and_farther(database_url: str, reader: Reader, span: Span) -> None:
    events = [event(NOON, drift=3)]
    store(database_url, *events)
    check_summary(reader, events, "Mistral", "v1", span, {})
    assert reader.events("Mistral", "v1", span, {}, 10) == matching(events, "Mistral", "v1", span, {})


def test_events_of_1970_are_found(database_url: str, reader: Reader) -> None:
    events = [event(0, drift=1), event(1, drift=2), event(DAY, drift=3)]
    store(database_url, *events)
    check_summary(reader, events, "Mistral", "v1", Span(0, 1), {})
    check_summary(reader, events, "Mistral", "v1", Span(0, 2 * DAY), {})
    assert reader.events("Mistral", "v1", ALL, {}, 10) == events[::-1]


def test_an_unknown_model_is_not_found_and_the_nearest_are_named(database_url: str, reader: Reader) -> None:
    with pytest.raises(NotFound, match="no event has come yet"):
        reader.stats("Mistral", "v1", ALL, {}, None, ())
    store(database_url, event(NOON, labels=labels_of("Mistral")), event(NOON, labels=labels_of("Llama")))
    for ask in (
        lambda: reader.stats("Mistrl", "v1", ALL, {}, None, ()),
        lambda: reader.events("Mistrl", "v1", ALL, {}, 1),
        lambda: reader.models("Mistrl"),
    ):
        with pytest.raises(NotFound) as caught:
            ask()
        assert caught.value.extra == {"nearest": ["Mistral"], "what": "model"}


def test_an_unknown_version_is_not_found_and_the_nearest_are_named(database_url: str, reader: Reader) -> None:
    store(database_url, event(NOON, labels=labels_of(version="v1.0")))
    with pytest.raises(NotFound) as caught:
        reader.stats("Mistral", "v1", ALL, {}, None, ())
    assert caught.value.extra == {"nearest": ["v1.0"], "what": "version"}


def test_an_unknown_metric_is_not_found_and_the_nearest_are_named(database_url: str, reader: Reader) -> None:
    store(database_url, event(NOON, prediction_accuracy=0.5))
    with pytest.raises(NotFound) as caught:
        reader.stats("Mistral", "v1", ALL, {}, "prediction_acuracy", ())
    assert caught.value.extra == {"nearest": ["prediction_accuracy"], "what": "metric"}


def test_a_name_that_no_database_can_hold_is_not_found(database_url: str, reader: Reader) -> None:
    store(database_url, event(NOON))
    for name, version in (("a\0b", "v1"), ("Mistral", "\0"), ("\ud800", "v1")):
        with pytest.raises(NotFound):
            reader.stats(name, version, ALL, {}, None, ())
        with pytest.raises(NotFound):
            reader.events(name, version, ALL, {}, 1)
    with pytest.raises(NotFound):
        reader.models("\0")
    with pytest.raises(NotFound):
        reader.stats("Mistral", "v1", ALL, {}, "\0", ())
    assert reader.stats("Mistral", "v1", ALL, {"env": "\0"}, None, ()).events == 0
    assert reader.stats("Mistral", "v1", ALL, {"\ud800": "x"}, None, ()).events == 0


def test_labels_choose_the_streams_that_have_them(database_url: str, reader: Reader) -> None:
    events = [
        event(NOON, labels=labels_of(env="prod", region="eu"), drift=1),
        event(NOON, labels=labels_of(env="prod"), drift=2),
        event(NOON, labels=labels_of(), drift=4),
    ]
    store(database_url, *events)
    for labels in ({}, {"env": "prod"}, {"env": "prod", "region": "eu"}, {"env": "test"}, {"region": "eu"}):
        check_summary(reader, events, "Mistral", "v1", ALL, labels)
        found = reader.events("Mistral", "v1", ALL, labels, 10)
        assert sorted(map(bits, found)) == sorted(map(bits, matching(events, "Mistral", "v1", ALL, labels)))


def test_one_metric_can_be_asked_for_alone(database_url: str, reader: Reader) -> None:
    events = [event(NOON + 20 * SECOND * n, drift=n, latency=10 * n) for n in range(9)]
    store(database_url, *events)
    span = Span(NOON + 1, NOON + 130 * SECOND)
    summary = reader.stats("Mistral", "v1", span, {}, "latency", (0.5,))
    inside = matching(events, "Mistral", "v1", span, {})
    assert summary.events == len(inside)
    assert [*summary.metrics] == ["latency"]
    check_stats(summary.metrics["latency"], inside, "latency")


@pytest.mark.parametrize("make", ["normal", "lognormal", "uniform", "pareto"])
def test_quantiles_are_within_a_little_over_one_percent(database_url: str, reader: Reader, make: str) -> None:
    rng = np.random.default_rng(5)
    values = getattr(rng, make)(*([3] if make == "pareto" else []), size=5000)
    events = [event(NOON + number * SECOND, value=float(value)) for number, value in enumerate(values)]
    store(database_url, *events)
    quantiles = tuple(np.linspace(0, 1, 101).tolist())
    found = reader.stats("Mistral", "v1", ALL, {}, "value", quantiles).metrics["value"]
    check_stats(found, events, "value")


def test_mean_and_deviation_survive_a_large_offset(database_url: str, reader: Reader) -> None:
    values = 1e9 + np.random.default_rng(1).normal(0, 1e-3, 4000)
    store(database_url, *(event(NOON + n * SECOND, value=float(v)) for n, v in enumerate(values)))
    found = reader.stats("Mistral", "v1", ALL, {}, "value", ()).metrics["value"]
    assert found.mean == pytest.approx(values.mean(), rel=1e-9)
    assert found.stddev == pytest.approx(values.std(), rel=1e-4)  # the values themselves have steps of 1e-7


def test_events_come_newest_first_over_days_and_chunks(database_url: str, reader: Reader) -> None:
    rng = np.random.default_rng(3)
    events = random_events(rng, 900, days=9)
    for part in range(0, 900, 60):
        send(database_url, message_of(*events[part : part + 60]))
    with Storing(database_url, claim_limit_events=60) as storing:
        storing.run()
    for limit in (1, 7, 100, 899, 2000):
        span = random_span(rng, days=9) if limit < 899 else ALL
        wanted = matching(events, "A", "v1", span, {})
        found = reader.events("A", "v1", span, {}, limit)
        assert len(found) == min(limit, len(wanted))
        times = [one.timestamp for one in found]
        assert times == sorted((one.timestamp for one in wanted), reverse=True)[:limit]
        assert {bits(one) for one in found} <= {bits(one) for one in wanted}


def test_of_events_at_one_time_a_limit_always_takes_the_same(database_url: str, reader: Reader) -> None:
    events = [event(NOON, value=float(number % 5), number=float(number)) for number in range(40)]
    other = [Event(labels_of(env="prod"), NOON, {"number": float(number)}) for number in range(40)]
    for number in (1, 0, 3, 2):
        store(database_url, *events[number::4], *other[number::4])
    everything = reader.events("Mistral", "v1", ALL, {}, 1000)
    assert sorted(map(bits, everything)) == sorted(map(bits, events + other))
    for limit in (1, 10, 39, 41, 79):
        assert reader.events("Mistral", "v1", ALL, {}, limit) == everything[:limit]


def test_values_beyond_what_a_sum_can_hold_keep_their_least_and_greatest(database_url: str, reader: Reader) -> None:
    store(database_url, *(event(NOON + n, value=1.7e308) for n in range(4)))
    found = reader.stats("Mistral", "v1", ALL, {}, "value", (0.5,)).metrics["value"]
    assert (found.count, found.min, found.max, found.mean, found.stddev) == (4, 1.7e308, 1.7e308, None, None)
    assert found.quantiles["0.5"] == 1.7e308


def test_every_quantile_keeps_the_name_it_was_asked_by(database_url: str, reader: Reader) -> None:
    store(database_url, event(NOON, value=3))
    found = reader.stats("Mistral", "v1", ALL, {}, "value", (0.0, 0.5, 0.9999999, 1.0)).metrics["value"]
    assert [*found.quantiles] == ["0", "0.5", "0.9999999", "1"]


def test_what_is_prepared_lasts_from_one_answer_to_the_next(database_url: str, reader: Reader) -> None:
    store(database_url, event(NOON))
    reader.stats("Mistral", "v1", ALL, {}, None, ())
    with reader.snapshot() as connection:
        row = connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
        assert row is not None
        assert row[0] > 0
