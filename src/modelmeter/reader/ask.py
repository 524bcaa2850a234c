"""Answers a question in one snapshot: from rollups where they suffice, from raw events where only those can tell."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from modelmeter import rollup
from modelmeter.batch import Labels
from modelmeter.errors import Unanswerable
from modelmeter.fold import cover, fold_span, fold_windows
from modelmeter.promql.labels import METRIC_NAME
from modelmeter.reader.answer import Answer, Group, make_answer
from modelmeter.reader.names import Connection, MetricNames, find_streams
from modelmeter.reader.question import Limits, Question
from modelmeter.reader.raw import Values, check_raw, fold_piece, read_pieces
from modelmeter.rollup import Rollups
from modelmeter.store.rollups import count_rollups
from modelmeter.window import DAY, HOUR, LATEST, MINUTE, Span, ceil, floor, format_duration

RAW = "raw"
_LIKELY_METRICS = 16


@dataclass(slots=True)
class Fetched:
    """Partials whose `stream` is the number of a group and whose windows are those of the question.

    `widened`: where finer data is retired, the ends of the span stand for whole windows of so many microseconds; or 0.
    """

    rows: Rollups
    groups: list[Group]
    resolution: str
    values: Values | None
    widened: int = 0


def ask(
    connection: Connection, names: MetricNames, question: Question, limits: Limits, streams: dict[int, Labels]
) -> Answer:
    """About `streams`, as streams_of has them in this snapshot.

    NotFound for an unknown metric; Unanswerable over a limit, or for raw events that are not kept.
    """
    found = fetch(connection, names, question, limits, streams)
    answer = make_answer(
        found.rows,
        found.groups,
        names.of(connection, np.unique(found.rows.metric).tolist()),
        question.quantiles,
        found.resolution,
        None if found.values is None else found.values.quantiles(question.quantiles),
    )
    answer = replace(answer, widened=found.widened)
    if len(answer) > limits.points:
        _check_points(question.span, question.step or LATEST, len(found.groups), limits)
        raise _too_many_points(len(answer), limits)
    return answer


def streams_of(connection: Connection, question: Question) -> dict[int, Labels]:
    """Those that a question is about. NotFound for an unknown model."""
    on_labels = [one for one in question.matchers if one.name != METRIC_NAME]
    return find_streams(connection, question.name, question.version, question.labels, on_labels)


def fetch(
    connection: Connection, names: MetricNames, question: Question, limits: Limits, streams: dict[int, Labels]
) -> Fetched:
    """What the answer is made of; errors as in ask."""
    span, step = question.span, question.step or LATEST
    _check_points(span, step, 1, limits)
    metrics = find_metrics(connection, names, question)
    groups, group_of = group_streams(streams, question.by)
    if len(groups) > limits.groups:
        raise Unanswerable(
            f"by: these are {len(groups):,} groups, over the limit of {limits.groups:,}; choose fewer streams by "
            "match=, or fewer labels",
            field="by",
            limit=limits.groups,
        )
    values: Values | None = None
    widened = 0
    if question.needs_raw:
        resolution, wanted = RAW, None if metrics is None else metrics[1:]
        check_raw(connection, list(streams), span, limits.samples)
        ids = {one: names.find(connection, one) for one in question.where.metrics} if question.where else {}
        values = Values() if question.exact and question.quantiles else None
        parts = [rollup.EMPTY]
        for piece in read_pieces(connection, list(streams), wanted, span, question.where, ids):
            parts += fold_piece(piece, step)
            if values is not None:
                values.add(piece, group_of[piece.stream], step)
        rows = rollup.concat(parts)
    else:
        _check_rollups(connection, streams, metrics, span, step, limits)
        resolution = resolution_of(span, step)
        folded = fold_windows(connection, list(streams), metrics, span, step)
        rows, widened = rollup.coarsen(folded.rows, step), folded.widened
        if step % DAY:
            _check_complete(connection, streams, span, rows)
    return Fetched(_regroup(rows, group_of), groups, resolution, values, widened)


def find_metrics(connection: Connection, names: MetricNames, question: Question) -> list[int] | None:
    """The ids of those that are asked for, EVENTS first; None for all."""
    found: list[int] | None = None
    if question.metrics is not None:
        found = [rollup.EVENTS, *(names.find(connection, one) for one in question.metrics)]
    for matcher in question.matchers:
        if matcher.name == METRIC_NAME:
            known = names.all(connection)
            candidates = [*known] if found is None else found[1:]
            kept = matcher.matches([known[one] for one in candidates]).tolist()
            found = [rollup.EVENTS, *(one for one, keep in zip(candidates, kept, strict=True) if keep)]
    return found


def group_streams(streams: dict[int, Labels], by: Sequence[str]) -> tuple[list[Group], dict[int, int]]:
    """The groups in order, and the number of each stream's."""
    values = {stream: tuple(dict(labels).get(name, "") for name in by) for stream, labels in streams.items()}
    groups = sorted(set(values.values()))
    number = {group: place for place, group in enumerate(groups)}
    return groups, {stream: number[group] for stream, group in values.items()}


def resolution_of(span: Span, step: int) -> str:
    """The coarsest resolution from which a span is folded in windows of `step`; of an empty one nothing is read."""
    if span.start >= span.end:
        return RAW
    coarsest = next(width for width in (DAY, HOUR, MINUTE) if step % width == 0)
    for name, width in (("1d", DAY), ("1h", HOUR)):
        # As pieces has it: an end that lies on the grid, or one microsecond after it, cuts nothing.
        start = span.start - 1 if span.start % width == 1 else span.start
        end = span.end + width - 1 if span.end % width == 1 else span.end
        if width <= coarsest and ceil(start, width) < floor(end, width):
            return name
    return "1m"


def _regroup(rows: Rollups, group_of: dict[int, int]) -> Rollups:
    if not len(rows):
        return rows
    streams = np.array(sorted(group_of), np.int64)
    numbers = np.array([group_of[one] for one in streams.tolist()], np.int32)
    return replace(rows, stream=numbers[np.searchsorted(streams, rows.stream)])


def _check_points(span: Span, step: int, groups: int, limits: Limits) -> None:
    windows = -(-(span.end - floor(span.start, step)) // step)
    if windows * groups > limits.points:
        shortest = ceil(-(-(span.end - span.start) * groups // limits.points), MINUTE)
        raise Unanswerable(
            f"step: these are {windows * groups:,} windows, over the limit of {limits.points:,}; choose a step of at "
            f"least {format_duration(shortest)}, or a shorter span",
            field="step",
            limit=limits.points,
        )


def _too_many_points(points: int, limits: Limits) -> Unanswerable:
    return Unanswerable(
        f"these are {points:,} points, over the limit of {limits.points:,}; choose a larger step or fewer groups",
        field="step",
        limit=limits.points,
    )


def _check_rollups(
    connection: Connection, streams: dict[int, Labels], metrics: list[int] | None, span: Span, step: int, limits: Limits
) -> None:
    """They are counted only when they could be too many."""
    coarsest = next(width for width in (DAY, HOUR, MINUTE) if step % width == 0)
    likely = (
        len(streams) * (_LIKELY_METRICS if metrics is None else len(metrics)) * ((span.end - span.start) // coarsest)
    )
    if likely <= limits.rollups:
        return
    found = count_rollups(connection, cover(span, coarsest).ranges, list(streams), metrics, limits.rollups + 1)
    if found > limits.rollups:
        raise Unanswerable(
            f"this would read more than {limits.rollups:,} rollups; choose a step of whole hours or days, a shorter "
            "span, fewer streams by match=, or name the metrics by metric=",
            field="step",
            limit=limits.rollups,
        )


def _check_complete(connection: Connection, streams: dict[int, Labels], span: Span, found: Rollups) -> None:
    """Fine windows are kept for less long than coarse ones: an answer that lacks events is none."""
    every = fold_span(connection, list(streams), [rollup.EVENTS], span)
    missing = int(every.count.sum()) - int(found.count[found.metric == rollup.EVENTS].sum())
    if missing:
        raise Unanswerable(
            f"step: {missing:,} events of this span are no longer kept in windows this small; choose a step of whole "
            "hours or days, or a later start",
            field="step",
        )
