"""The state of what a question is about: as long as it is the same, so is the answer. Much cheaper than the answer.

Every row that is stored has the number of its transaction (xmin), and no row is changed in place: so the set of
(table, xmin, series, window) of the rollups that overlap a span says which events are in it. Where a row lies in the
span as a whole, the ends of the span may move without a change; where they cut through rows, they are part of it.
What retention has retired is part of it too. Compaction writes rows anew, so the state may change though the answer
does not; the other way round it cannot be.
"""

from collections.abc import Collection

from modelmeter.reader.ask import find_metrics
from modelmeter.reader.names import SQL, Connection, MetricNames
from modelmeter.reader.question import Question
from modelmeter.window import DAY, HOUR, LATEST, ceil, floor, to_datetime


def state_of(connection: Connection, names: MetricNames, question: Question, streams: Collection[int]) -> str:
    """Equal for two snapshots only if the question has the same answer in both, whatever `now` is in it.

    `streams` are those that it is about.
    """
    since, until = question.span.start, question.span.end
    start, end = floor(since, HOUR), min(ceil(until, HOUR), LATEST)
    first_day, last_day = ceil(start, DAY), floor(end, DAY)
    if first_day >= last_day:
        first_day = last_day = end
    scope = {
        "streams": list(streams),
        # Only events can tell for which of them a condition holds.
        "metrics": None if question.where else find_metrics(connection, names, question),
        "start": to_datetime(start),
        "end": to_datetime(end),
        "first_day": to_datetime(first_day),
        "last_day": to_datetime(last_day),
        "since": to_datetime(since),
        "until": to_datetime(until),
    }
    row = connection.execute(SQL["state"], scope, prepare=True).fetchone()
    assert row is not None
    rows, total, cut_at_start, cut_at_end, retired = row
    return f"{rows} {total} {retired} {since if cut_at_start else ''} {until if cut_at_end else ''}"


def catalog_state(connection: Connection) -> str:
    """Of the list of models and versions."""
    row = connection.execute(SQL["catalog_state"], prepare=True).fetchone()
    assert row is not None
    return str(row[0])
