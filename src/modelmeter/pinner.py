"""Pins baselines: folds of some streams in a span, kept under a name for as long as one likes."""

from collections.abc import Sequence

from modelmeter import rollup, telemetry
from modelmeter.config import Config
from modelmeter.errors import Unprocessable
from modelmeter.rollup import Stats
from modelmeter.selection import Selection
from modelmeter.side_reader import Side, SideReader, within_calendar
from modelmeter.store.baselines import Baseline, Baselines, find_baseline, list_baselines, read_baseline
from modelmeter.window import Span, to_rfc3339


class Pinner:
    """Safe to use from many threads."""

    def __init__(self, config: Config, sides: SideReader) -> None:
        self._sides = sides
        self._baselines = Baselines(config.database_url, config.baseline_limit)

    def all(self) -> list[Baseline]:
        """By name."""
        with self._sides.snapshot() as connection:
            found = list_baselines(connection)
        telemetry.BASELINES.set(len(found))
        return found

    def find(self, name: str, quantiles: Sequence[float]) -> tuple[Baseline, dict[str, Stats]]:
        """One, with the stats of its metrics. NotFound."""
        with self._sides.snapshot() as connection:
            found = self._sides.find_baseline(connection, name)
            rows = read_baseline(connection, name)
            names = self._sides.names(connection, rows.metric.tolist())
        stats = {
            names[metric]: rollup.stats(rows, row, quantiles)
            for row, metric in enumerate(rows.metric.tolist())
            if metric != rollup.EVENTS
        }
        return found, dict(sorted(stats.items()))

    def pin(self, name: str, selection: Selection, span: Span, now: int, by: str) -> bool:
        """Keep the events of `selection` in `span` under `name`; whether the name is new.

        What stands under the name for the same events stays as it is: retention may have taken them since.
        Unprocessable when there is no event to keep, or when there are as many baselines as there may be.
        """
        span = within_calendar(span)
        with self._sides.snapshot() as connection:
            standing = find_baseline(connection, name)
            if standing is not None and (standing.match, standing.span) == (str(selection), span):
                return False
            ((told, rows),) = self._sides.fold(connection, [Side(selection, span)], None)
        if not told.events:
            raise Unprocessable(f"{selection} has no event from {to_rfc3339(span.start)} to {to_rfc3339(span.end)}")
        is_new, count = self._baselines.put(Baseline(name, told.match, span, now, by, told.events), rows)
        telemetry.BASELINES.set(count)
        return is_new

    def drop(self, name: str) -> None:
        """NotFound when there is none."""
        dropped, count = self._baselines.drop(name)
        telemetry.BASELINES.set(count)
        if not dropped:
            with self._sides.snapshot() as connection:
                self._sides.find_baseline(connection, name)
