"""The two entry points: a query at one instant, or over a range of steps; and the result as Prometheus' JSON."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from modelmeter.promql.errors import BadQuery
from modelmeter.promql.evaluator import Evaluator
from modelmeter.promql.expression import Expression, kind_of
from modelmeter.promql.format import format_instant, format_points, format_value, instant_prefix
from modelmeter.promql.labels import Labels
from modelmeter.promql.note import Notes
from modelmeter.promql.parse import parse
from modelmeter.promql.reader import Limits, Reader
from modelmeter.promql.source import Ints, Samples, Source
from modelmeter.promql.value import Value, Vector

_KIND_NAMES = {"scalar": "scalar", "vector": "instant vector", "matrix": "range vector", "string": "string"}


@dataclass(frozen=True, slots=True)
class Result:
    """`value` at `times`. In a range query scalars have become vectors and the series are in order of their labels."""

    value: Value
    times: Ints
    is_range: bool
    warnings: Sequence[str]
    infos: Sequence[str]

    def data_json(self) -> bytes:
        """The `data` of the API's answer: `{"resultType":...,"result":...}`."""
        value, now = self.value, format_instant(int(self.times[0]))
        match value:
            case Vector() if self.is_range:
                return _matrix(_range_points(value, self.times))
            case Vector():
                samples = zip(value.labels, value.values[:, 0].tolist(), strict=True)
                body = ",".join(
                    f'{{"metric":{_metric(labels)},"value":[{now},"{format_value(number)}"]}}'
                    for labels, number in samples
                )
                return f'{{"resultType":"vector","result":[{body}]}}'.encode()
            case Samples():
                return _matrix(_raw_points(value))
            case str():
                return f'{{"resultType":"string","result":[{now},{_json(value)}]}}'.encode()
            case _:
                return f'{{"resultType":"scalar","result":[{now},"{format_value(float(value[0]))}"]}}'.encode()


def evaluate_instant(query: str, time: int, source: Source, limits: Limits | None = None) -> Result:
    """The query at `time` in microseconds. BadQuery, QueryFailed or QueryTimeout when there is no answer."""
    return evaluate_expression(parse(query), time, source, limits)


def evaluate_expression(expression: Expression, time: int, source: Source, limits: Limits | None = None) -> Result:
    """As `evaluate_instant`, of a query that is parsed already: a rule is parsed once and evaluated often."""
    notes = Notes()
    reader = Reader(source, limits or Limits(), notes, time, time)
    times = np.array([time], dtype=np.int64)
    value = _evaluate(Evaluator(reader, times, 0), expression)
    if isinstance(value, Vector):
        value = value.nonempty()
    if isinstance(value, Samples):
        value = _sorted_samples(value)
    return Result(value, times, False, notes.warnings, notes.infos)


def evaluate_range(query: str, start: int, end: int, step: int, source: Source, limits: Limits | None = None) -> Result:
    """The query at `start`, `start + step` and so on until `end`, all in microseconds. Errors as above."""
    limits = limits or Limits()
    if end < start:
        raise BadQuery('invalid parameter "end": end timestamp must not be before start time')
    if step <= 0:
        raise BadQuery(
            'invalid parameter "step": zero or negative query resolution step widths are not accepted. '
            "Try a positive integer"
        )
    if (end - start) // step > limits.steps:
        raise BadQuery(
            f"exceeded maximum resolution of {limits.steps:,} points per timeseries. "
            "Try decreasing the query resolution (?step=XX)"
        )
    expression = parse(query)
    kind = kind_of(expression)
    if kind not in ("scalar", "vector"):
        raise BadQuery(
            f'invalid expression type "{_KIND_NAMES[kind]}" for range query, must be Scalar or instant Vector'
        )
    notes = Notes()
    times = np.arange(start, end + 1, step, dtype=np.int64)
    reader = Reader(source, limits, notes, start, end)
    value = _evaluate(Evaluator(reader, times, step if end > start else 0), expression)
    if isinstance(value, np.ndarray):
        value = Vector([()], value[None, :], np.ones((1, times.size), bool))
    if isinstance(value, Vector):
        value = value.nonempty()
        value = value.rows(sorted(range(len(value.labels)), key=value.labels.__getitem__))
    return Result(value, times, True, notes.warnings, notes.infos)


def _evaluate(evaluator: Evaluator, expression: Expression) -> Value:
    try:
        with np.errstate(all="ignore"):  # Inf and NaN are answers
            return evaluator.evaluate(expression)
    except RecursionError:
        raise BadQuery("parse error: the expression is nested too deeply") from None


def _sorted_samples(samples: Samples) -> Samples:
    """The series that have samples, in order of their labels."""
    sizes = np.diff(samples.offsets)
    order = [row for row in sorted(range(sizes.size), key=samples.labels.__getitem__) if sizes[row]]
    where = np.concatenate(
        [np.arange(samples.offsets[row], samples.offsets[row + 1]) for row in order] or [np.zeros(0, np.int64)]
    )
    return Samples(
        [samples.labels[row] for row in order],
        np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes[order]))).astype(np.int64),
        samples.timestamps[where],
        samples.values[where],
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _metric(labels: Labels) -> str:
    return _json(dict(labels))


def _matrix(series: Sequence[tuple[Labels, str]]) -> bytes:
    body = ",".join(f'{{"metric":{_metric(labels)},"values":[{points}]}}' for labels, points in series)
    return f'{{"resultType":"matrix","result":[{body}]}}'.encode()


def _range_points(vector: Vector, times: Ints) -> list[tuple[Labels, str]]:
    prefixes = [instant_prefix(instant) for instant in times.tolist()]
    series = []
    for row, labels in enumerate(vector.labels):
        present = vector.present[row]
        if present.all():
            series.append((labels, format_points(prefixes, vector.values[row])))
            continue
        where = np.flatnonzero(present)
        series.append((labels, format_points([prefixes[at] for at in where.tolist()], vector.values[row][where])))
    return series


def _raw_points(samples: Samples) -> list[tuple[Labels, str]]:
    series = []
    for row, labels in enumerate(samples.labels):
        start, end = int(samples.offsets[row]), int(samples.offsets[row + 1])
        prefixes = [instant_prefix(instant) for instant in samples.timestamps[start:end].tolist()]
        series.append((labels, format_points(prefixes, samples.values[start:end])))
    return series
