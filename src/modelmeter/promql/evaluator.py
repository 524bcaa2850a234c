"""Evaluates an expression over all steps at once: series by steps, as matrices. No loop over samples or steps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelmeter.promql import aggregation, binary, classic_histogram, drift, functions
from modelmeter.promql.date import DATE_PARTS, date_part
from modelmeter.promql.errors import BadQuery, too_many_samples
from modelmeter.promql.expression import (
    SET_OPERATORS,
    Aggregate,
    Binary,
    Call,
    Expression,
    MatrixSelector,
    Negation,
    NumberLiteral,
    StringLiteral,
    Subquery,
    VectorSelector,
    children,
    is_constant,
    kind_of,
)
from modelmeter.promql.format import format_open_metrics
from modelmeter.promql.labels import Labels, metric_name, replace
from modelmeter.promql.over_time import RANGE_FUNCTIONS, RangeFunction, Raw
from modelmeter.promql.parse import DRIFT_FUNCTIONS
from modelmeter.promql.reader import Reader
from modelmeter.promql.source import Floats, Histograms, Ints, Mask, Samples
from modelmeter.promql.value import Value, Vector, empty, merge_same, one_series, require_distinct, with_values
from modelmeter.promql.window_samples import cut
from modelmeter.window import SECOND

_COUNTER_ENDINGS = ("_total", "_sum", "_count", "_bucket")
_SORTS = frozenset({"sort", "sort_desc", "sort_by_label", "sort_by_label_desc"})


@dataclass(frozen=True, slots=True)
class Evaluator:
    """`times` (steps,) are the evaluation times, ascending. `step` is the query's, 0 in an instant query."""

    reader: Reader
    times: Ints
    step: int

    def evaluate(self, expression: Expression) -> Value:
        self.reader.limits.check_time()
        if self.times.size > 1 and children(expression) and kind_of(expression) == "vector" and is_constant(expression):
            once = Evaluator(self.reader, self.times[:1], self.step).vector(expression)
            shape = (len(once.labels), self.times.size)
            self.reader.check_cells(*shape)
            return Vector(once.labels, np.broadcast_to(once.values, shape), np.broadcast_to(once.present, shape))
        match expression:
            case NumberLiteral():
                return np.full(self.times.size, expression.value)
            case StringLiteral():
                return expression.value
            case VectorSelector():
                return self.reader.vector(expression, self.times)
            case MatrixSelector() | Subquery():
                return self._samples(expression)
            case Negation():
                return self._negation(expression)
            case Binary():
                return self._binary(expression)
            case Aggregate():
                return self._aggregate(expression)
            case Call():
                return self._call(expression)

    def vector(self, expression: Expression) -> Vector:
        value = self.evaluate(expression)
        if not isinstance(value, Vector):
            raise BadQuery(f"parse error: expected type instant vector, got {kind_of(expression)}")
        return value

    def scalar(self, expression: Expression) -> Floats:
        value = self.evaluate(expression)
        if not isinstance(value, np.ndarray):
            raise BadQuery(f"parse error: expected type scalar, got {kind_of(expression)}")
        return value

    def _negation(self, node: Negation) -> Value:
        value = self.evaluate(node.inner)
        return merge_same(with_values(value, -value.values)) if isinstance(value, Vector) else -self.scalar(node.inner)

    def _binary(self, node: Binary) -> Value:
        left, right = self.evaluate(node.left), self.evaluate(node.right)
        match left, right:
            case Vector(), Vector():
                if node.operator in SET_OPERATORS:
                    return binary.set_operation(node.operator, left, right, node.matching)
                return binary.vectors(node.operator, left, right, node.matching, return_bool=node.return_bool)
            case Vector(), np.ndarray():
                return binary.vector_and_scalar(node.operator, left, right, swapped=False, return_bool=node.return_bool)
            case np.ndarray(), Vector():
                return binary.vector_and_scalar(node.operator, right, left, swapped=True, return_bool=node.return_bool)
            case np.ndarray(), np.ndarray():
                return binary.scalars(node.operator, left, right)
        raise BadQuery("parse error: binary expression must contain only scalar and instant vector types")

    def _aggregate(self, node: Aggregate) -> Vector:
        vector = self.vector(node.inner)
        if node.operator in aggregation.REDUCTIONS:
            kernel = aggregation.REDUCTIONS[node.operator]
            return aggregation.reduce_groups(vector, node.labels, without=node.without, kernel=kernel)
        if node.parameter is None:
            raise BadQuery(f"parse error: {node.operator} needs a parameter")
        if isinstance(node.parameter, StringLiteral):
            target = node.parameter.value
            counted = aggregation.count_values(vector, node.labels, without=node.without, target=target)
            self.reader.check_cells(*counted.values.shape)
            return counted
        parameter = self.scalar(node.parameter)
        if node.operator == "quantile":
            self._check_quantiles(parameter)
            return aggregation.quantile(vector, node.labels, without=node.without, q=parameter)
        if node.operator == "limit_ratio":
            for extreme, limit in ((parameter.max(), 1.0), (parameter.min(), -1.0)):
                if abs(extreme) > 1 and extreme * limit > 0:
                    self.reader.notes.bad_ratio(float(extreme), limit)
        return aggregation.select(node.operator, vector, node.labels, without=node.without, parameter=parameter)

    def _check_quantiles(self, q: Floats) -> None:
        for bad in (q[np.isnan(q)][:1], q[q > 1], q[q < 0]):
            if bad.size:
                self.reader.notes.bad_quantile(float(bad[np.abs(bad).argmax()]))

    def _call(self, node: Call) -> Value:
        name, arguments = node.function, node.arguments
        if name in RANGE_FUNCTIONS:
            return self._range_call(node, RANGE_FUNCTIONS[name])
        if name in functions.MATH:
            vector = self.vector(arguments[0])
            return merge_same(with_values(vector, functions.MATH[name](vector.values)))
        if name in DATE_PARTS:
            if not arguments:
                return one_series(date_part(name, np.floor(self.times / SECOND)))
            vector = self.vector(arguments[0])
            return merge_same(with_values(vector, date_part(name, vector.values)))
        if name in DRIFT_FUNCTIONS:
            return self._drift(node)
        if name in _SORTS:
            return self._sort(node)
        if name.startswith("histogram_"):
            return self._classic_histogram(node)
        return self._other_call(node)

    def _other_call(self, node: Call) -> Value:
        arguments = node.arguments
        match node.function:
            case "time":
                return self.times / SECOND
            case "pi":
                return np.full(self.times.size, np.pi)
            case "start":
                return np.full(self.times.size, self.reader.start / SECOND)
            case "end":
                return np.full(self.times.size, self.reader.end / SECOND)
            case "range":
                return np.full(self.times.size, (self.reader.end - self.reader.start) / SECOND)
            case "step":
                return np.full(self.times.size, self.step / SECOND)
            case "min_of":
                return np.minimum(self.scalar(arguments[0]), self.scalar(arguments[1]))
            case "max_of":
                return np.maximum(self.scalar(arguments[0]), self.scalar(arguments[1]))
            case "scalar":
                return functions.to_scalar(self.vector(arguments[0]))
            case "vector":
                return one_series(self.scalar(arguments[0]))
            case "absent":
                return functions.absent(self.vector(arguments[0]), functions.absent_labels(arguments[0])).nonempty()
            case "timestamp":
                return self._timestamp(arguments[0])
            case "start_timestamp":
                return empty(self.times.size)
            case "round":
                nearest = self.scalar(arguments[1]) if len(arguments) > 1 else np.ones(self.times.size)
                return merge_same(functions.round_to(self.vector(arguments[0]), nearest))
            case "clamp":
                low, high = self.scalar(arguments[1]), self.scalar(arguments[2])
                return merge_same(functions.clamp(self.vector(arguments[0]), low, high).nonempty())
            case "clamp_min":
                low = self.scalar(arguments[1])
                return merge_same(functions.clamp(self.vector(arguments[0]), low, np.full_like(low, np.inf)).nonempty())
            case "clamp_max":
                high = self.scalar(arguments[1])
                return merge_same(
                    functions.clamp(self.vector(arguments[0]), np.full_like(high, -np.inf), high).nonempty()
                )
            case "label_replace":
                target, replacement, source, pattern = _strings(arguments[1:])
                return functions.label_replace(self.vector(arguments[0]), target, replacement, source, pattern)
            case "label_join":
                target, separator, *sources = _strings(arguments[1:])
                return functions.label_join(self.vector(arguments[0]), target, separator, sources)
            case name:
                raise BadQuery(f"{name}() is not supported")

    def _timestamp(self, argument: Expression) -> Vector:
        if isinstance(argument, VectorSelector):
            found = self.reader.timestamps(argument, self.times)
            return merge_same(with_values(found, found.values))
        vector = self.vector(argument)
        return merge_same(with_values(vector, np.broadcast_to(self.times / SECOND, vector.values.shape)))

    def _sort(self, node: Call) -> Vector:
        vector = self.vector(node.arguments[0])
        if self.times.size > 1:
            self.reader.notes.sort_in_range_query()
            return vector
        descending = node.function.endswith("_desc")
        if node.function.startswith("sort_by_label"):
            return functions.sort_by_label(vector, _strings(node.arguments[1:]), descending=descending)
        return functions.sort_by_value(vector, descending=descending)

    def _classic_histogram(self, node: Call) -> Vector:
        arguments, notes = node.arguments, self.reader.notes
        match node.function:
            case "histogram_quantile":
                q = self.scalar(arguments[0])
                self._check_quantiles(q)
                estimate = classic_histogram.quantile_of(q, notes)
                return classic_histogram.evaluate(self.vector(arguments[1]), estimate, notes)
            case "histogram_fraction":
                estimate = classic_histogram.fraction_of(self.scalar(arguments[0]), self.scalar(arguments[1]))
                return classic_histogram.evaluate(self.vector(arguments[2]), estimate, notes)
            case _:
                return self._quantiles(node)

    def _quantiles(self, node: Call) -> Vector:
        """`histogram_quantiles`: some quantiles at once, told apart by a label."""
        buckets, notes = self.vector(node.arguments[0]), self.reader.notes
        (label,) = _strings(node.arguments[1:2])
        parts = []
        for argument in node.arguments[2:]:
            q = self.scalar(argument)
            self._check_quantiles(q)
            found = classic_histogram.evaluate(buckets, classic_histogram.quantile_of(q, notes), notes)
            for value in np.unique(q).tolist():
                named = [replace(labels, {label: format_open_metrics(value)}) for labels in found.labels]
                same = (q == value) | (np.isnan(q) & np.isnan(value))
                parts.append(Vector(named, found.values, found.present & same))
        return merge_same(_stack(parts).nonempty())

    def _drift(self, node: Call) -> Vector:
        actual, reference, *ignoring = node.arguments
        return drift.compare(node.function, self._histograms(actual), self._histograms(reference), _strings(ignoring))

    def _histograms(self, argument: Expression) -> Histograms:
        if isinstance(argument, MatrixSelector):
            ends = self.reader.instants(self.times, argument.vector.at, argument.vector.offset)
            found = self.reader.histograms(argument.vector.matchers, argument.range, ends)
            if found is not None:
                return found
        samples, ends, range_ = self._range(argument)
        self.reader.check_cells(len(samples.labels), ends.size)
        return drift.histograms_of(cut(samples, range_, ends), self.reader.limits.samples)

    def _range_call(self, node: Call, function: RangeFunction) -> Vector:
        argument = next(one for one in node.arguments if isinstance(one, MatrixSelector | Subquery))
        scalars = [self.scalar(one) for one in node.arguments if one is not argument]
        labels, values, present = self._folded(argument, function, scalars) or self._from_raw(
            argument, function, scalars
        )
        if node.function == "quantile_over_time" and present.any():
            self._check_quantiles(scalars[0])
        if node.function == "absent_over_time":
            absent = Vector(labels, values, present)
            return functions.absent(absent, functions.absent_labels(argument)).nonempty()
        result = Vector(labels, values, present).nonempty()
        if node.function in ("rate", "increase"):
            for one in result.labels:
                name = metric_name(one)
                if name and not name.endswith(_COUNTER_ENDINGS):
                    self.reader.notes.not_a_counter(name)
        if function.keeps_name:
            return result
        return require_distinct(with_values(result, result.values))

    def _folded(
        self, argument: Expression, function: RangeFunction, scalars: Sequence[Floats]
    ) -> tuple[Sequence[Labels], Floats, Mask] | None:
        if function.fold is None or not isinstance(argument, MatrixSelector):
            return None
        q = scalars[0] if "quantile" in function.needs else None
        if q is not None and not ((q >= 0) & (q <= 1)).all():
            return None
        ends = self.reader.instants(self.times, argument.vector.at, argument.vector.offset)
        folded = self.reader.fold(argument.vector.matchers, argument.range, ends, function.needs, q)
        return None if folded is None else (folded.labels, function.fold(folded), folded.count > 0)

    def _from_raw(
        self, argument: Expression, function: RangeFunction, scalars: Sequence[Floats]
    ) -> tuple[Sequence[Labels], Floats, Mask]:
        samples, ends, range_ = self._range(argument)
        self.reader.check_cells(len(samples.labels), ends.size)
        values, present = function.raw(Raw(cut(samples, range_, ends), scalars, self.times))
        return samples.labels, values, present

    def _range(self, argument: Expression) -> tuple[Samples, Ints, int]:
        """The samples that a range argument covers, the ends of its windows and their width."""
        match argument:
            case MatrixSelector():
                ends = self.reader.instants(self.times, argument.vector.at, argument.vector.offset)
                start = int(ends.min()) - argument.range
                return self.reader.samples(argument.vector.matchers, start, int(ends.max())), ends, argument.range
            case Subquery():
                ends = self.reader.instants(self.times, argument.at, argument.offset)
                return self._subquery(argument, ends), ends, argument.range
        raise BadQuery(f"parse error: expected type range vector, got {kind_of(argument)}")

    def _samples(self, node: MatrixSelector | Subquery) -> Samples:
        """A range vector as the result of an instant query."""
        samples, _, _ = self._range(node)
        return samples

    def _subquery(self, node: Subquery, ends: Ints) -> Samples:
        """The inner expression on a grid of whole steps since 1970, only where a window needs it."""
        step = node.step or self.reader.limits.default_step
        first = (int(ends.min()) - node.range) // step * step + step
        if (int(ends.max()) - first) // step > self.reader.limits.samples:
            raise too_many_samples()
        grid = np.arange(first, int(ends.max()) + 1, step, dtype=np.int64)
        window = np.searchsorted(ends, grid, "left")
        grid = grid[ends[window] - node.range < grid]
        if not grid.size:
            return Samples([], np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0))
        inner = Evaluator(self.reader, grid, self.step).evaluate(node.inner)
        if not isinstance(inner, Vector):
            raise BadQuery(
                f"parse error: subquery is only allowed on instant vector, got {kind_of(node.inner)} instead"
            )
        offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(inner.present.sum(axis=1))))
        _, place = np.nonzero(inner.present)
        return Samples(inner.labels, offsets, grid[place], inner.values[inner.present])


def _strings(arguments: Sequence[Expression]) -> list[str]:
    texts = []
    for argument in arguments:
        if not isinstance(argument, StringLiteral):
            raise BadQuery(f"parse error: expected type string, got {kind_of(argument)}")
        texts.append(argument.value)
    return texts


def _stack(parts: Sequence[Vector]) -> Vector:
    return Vector(
        [labels for part in parts for labels in part.labels],
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.present for part in parts]),
    )
