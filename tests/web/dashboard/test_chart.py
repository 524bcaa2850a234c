"""Lines and heatmaps against the sketch and the reader, which answer one window at a time."""

import base64

import numpy as np
import pytest

from modelmeter import rollup, sketch
from modelmeter.matcher import Matcher
from modelmeter.reader import Reader
from modelmeter.web.dashboard import chart
from modelmeter.web.dashboard.chart import Grid
from modelmeter.web.dashboard.chart_reader import BAND, ChartReader, grid_of
from modelmeter.window import DAY, HOUR, MINUTE, SECOND, Span
from tests.history import BY_HOUR, BY_MINUTE, NOON, random_events, store
from tests.web.dashboard.test_overview import METRIC, folded, places


@pytest.mark.parametrize("settings", [BY_MINUTE, BY_HOUR], ids=["fast streams", "slow streams"])
@pytest.mark.parametrize("length", [HOUR // 6, 6 * HOUR, 2 * DAY])
def test_lines_are_the_stats_of_each_step(database_url: str, settings: dict[str, object], length: int) -> None:
    rng = np.random.default_rng(5)
    events = random_events(rng, 300, days=1)
    store(database_url, *events, **settings)
    reader = Reader(database_url)
    span = Span(NOON - length // 2 + 7 * SECOND, NOON + length // 2)
    found = ChartReader(reader).read("A", (), "v1", span, 0.5, [Matcher("env", "!=", "test")])
    assert found.versions == ["v1", "v2"]
    grid = found.grid
    more = (span.end - span.start) // 2
    assert grid.start <= span.start - more
    assert grid.start + grid.count * grid.step >= span.end + more
    checked = 0
    for row, version in enumerate(found.versions):
        for step in np.flatnonzero(found.events[row]).tolist()[:12]:
            begin = grid.start + step * grid.step
            window = Span(begin, begin + grid.step)
            mine = [one for one in events if window.start <= one.timestamp < window.end]
            mine = [one for one in mine if ("name", "A") in one.labels and ("version", version) in one.labels]
            mine = [one for one in mine if ("env", "test") not in one.labels]
            assert found.events[row, step] == len(mine)
            for metric, (lines, _) in found.metrics.items():
                values = [one.metrics[metric] for one in mine if metric in one.metrics]
                assert lines.count[row, step] == len(values)
                if not values:
                    assert np.isnan(lines.mean[row, step])
                    continue
                assert lines.mean[row, step] == pytest.approx(np.mean(values), rel=1e-9, abs=1e-9)
                exact = sketch.quantiles(sketch.sketch_of(np.array(values)), BAND, min(values), max(values))
                assert [lines.low[row, step], lines.high[row, step]] == pytest.approx(exact, rel=1e-12, abs=1e-12)
                checked += 1
    assert checked > 5
    reader.close()


def heat_of(values: list[float]) -> chart.Heat:
    rows = folded(1, [NOON + place for place in range(len(values))], values)
    heat = chart.lines_and_heat(rows, places(1), Grid(NOON, HOUR, 2), BAND, 0)[METRIC][1]
    assert heat is not None
    return heat


def test_a_heatmap_has_each_value_in_its_row() -> None:
    rng = np.random.default_rng(6)
    for values in (rng.lognormal(2, 0.6, 4000), -rng.lognormal(2, 0.6, 4000), rng.normal(0, 3, 4000), np.zeros(9)):
        heat = heat_of(values.tolist())
        assert (np.diff(heat.edges) > 0).all()
        shares = heat.shares.astype(float) / 255 * heat.top
        inside, _ = np.histogram(values, heat.edges)
        seen = shares[0]
        unclipped = heat.shares[0] < 255
        np.testing.assert_allclose(seen[unclipped], inside[unclipped] / values.size, atol=heat.top / 255 + 0.03)
        assert inside.sum() > 0.99 * values.size
        assert not heat.shares[1].any()
        assert base64.b64decode(heat.packed()) == heat.shares.tobytes()


def test_a_grid_has_enough_steps_and_not_many() -> None:
    for length in (10 * SECOND, HOUR, DAY, 30 * DAY, 5000 * DAY):
        grid = grid_of(Span(NOON, NOON + length), 0.5, SECOND)
        assert 5 <= length / grid.step <= 360
        assert grid.start % grid.step == 0
    assert grid_of(Span(NOON, NOON + HOUR), 0, MINUTE).step == MINUTE


def test_numbers_for_json_are_short_and_nan_is_null() -> None:
    assert chart.plain(np.array([1 / 3, np.nan, 12_345_678.9])) == [0.333333, None, 12_345_700.0]


def test_empty_partials_of_events_draw_no_line() -> None:
    rows = rollup.select(folded(1, [NOON], [1.0]), np.array([True, False]))
    assert chart.lines_and_heat(rows, places(1), Grid(NOON, HOUR, 1), BAND, 0) == {}
