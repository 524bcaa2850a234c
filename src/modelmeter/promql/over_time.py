"""Functions over a range vector, by name: from raw windows always, from folded windows where they suffice."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from modelmeter.promql import rate, statistic
from modelmeter.promql.source import Floats, Folded, Ints, Mask, Statistic
from modelmeter.promql.window_samples import Block, Windows, reduce
from modelmeter.window import SECOND

Result = tuple[Floats, Mask]


@dataclass(frozen=True, slots=True)
class Raw:
    """What a function of raw windows may look at. `scalars` are its scalar arguments, one value per window."""

    windows: Windows
    scalars: Sequence[Floats]
    times: Ints
    """The evaluation times; other than the windows' ends under `offset` and `@`."""


@dataclass(frozen=True, slots=True)
class RangeFunction:
    """`needs` and `fold`: the statistics that suffice, and the result from them; None when raw samples must do."""

    raw: Callable[[Raw], Result]
    needs: frozenset[Statistic] = frozenset()
    fold: Callable[[Folded], Floats] | None = None
    keeps_name: bool = False


def _by_block(kernel: Callable[[Floats, Mask], Floats]) -> Callable[[Raw], Result]:
    def evaluate(raw: Raw) -> Result:
        windows = raw.windows
        values = windows.samples.values

        def of(block: Block) -> Floats:
            return kernel(values[block.position], block.mask)

        return reduce(windows.low, windows.high, of), windows.count > 0

    return evaluate


def _quantile(raw: Raw) -> Result:
    windows, values = raw.windows, raw.windows.samples.values
    q = np.broadcast_to(raw.scalars[0], windows.low.shape).ravel()

    def of(block: Block) -> Floats:
        return statistic.quantile(values[block.position], block.mask, q[block.which])

    return reduce(windows.low, windows.high, of), windows.count > 0


def _time_of(extreme: Callable[[Floats, Mask], Floats]) -> Callable[[Raw], Result]:
    """The time of the last sample that equals the extreme; of the last sample when all are NaN."""

    def evaluate(raw: Raw) -> Result:
        windows = raw.windows
        values, times = windows.samples.values, windows.samples.timestamps

        def of(block: Block) -> Floats:
            own = values[block.position]
            peak = extreme(own, block.mask)[:, None]
            hit = block.mask & ((own == peak) | np.isnan(peak))
            width = hit.shape[1]
            last = width - 1 - np.argmax(hit[:, ::-1], axis=1)
            return np.asarray(times[block.position[np.arange(last.size), last]] / SECOND)

        return reduce(windows.low, windows.high, of), windows.count > 0

    return evaluate


def _end(flat: str, position: Callable[[Windows], Ints]) -> Callable[[Raw], Result]:
    """The first or last value, or its time in seconds."""

    def evaluate(raw: Raw) -> Result:
        windows = raw.windows
        some = windows.count > 0
        if flat == "values":
            return windows.at(windows.samples.values, position(windows), some), some
        return windows.at(windows.samples.timestamps, position(windows), some) / SECOND, some

    return evaluate


def _first(windows: Windows) -> Ints:
    return windows.low


def _last(windows: Windows) -> Ints:
    return windows.high - 1


def _count(raw: Raw) -> Result:
    return raw.windows.count.astype(np.float64), raw.windows.count > 0


def _present(raw: Raw) -> Result:
    return np.ones(raw.windows.low.shape), raw.windows.count > 0


def _deriv(raw: Raw) -> Result:
    slope, _, enough = rate.regression(raw.windows, None)
    return slope, enough


def _predict(raw: Raw) -> Result:
    slope, intercept, enough = rate.regression(raw.windows, raw.times)
    return slope * raw.scalars[0] + intercept, enough


def _rate(*, counter: bool, per_second: bool) -> Callable[[Raw], Result]:
    return lambda raw: rate.extrapolated(raw.windows, counter=counter, per_second=per_second)


def _need(*statistics: Statistic) -> frozenset[Statistic]:
    return frozenset(("count", *statistics))


def _have(column: np.ndarray | None) -> Floats:
    if column is None:
        raise AssertionError("the source left out a statistic that was asked for")
    return column.astype(np.float64, copy=False)


RANGE_FUNCTIONS: dict[str, RangeFunction] = {
    "avg_over_time": RangeFunction(
        _by_block(statistic.mean), _need("sum"), lambda folded: _have(folded.sum) / folded.count
    ),
    "sum_over_time": RangeFunction(_by_block(statistic.add), _need("sum"), lambda folded: _have(folded.sum)),
    "min_over_time": RangeFunction(_by_block(statistic.least), _need("min"), lambda folded: _have(folded.min)),
    "max_over_time": RangeFunction(_by_block(statistic.greatest), _need("max"), lambda folded: _have(folded.max)),
    "count_over_time": RangeFunction(_count, _need(), lambda folded: _have(folded.count)),
    "stdvar_over_time": RangeFunction(
        _by_block(statistic.variance), _need("m2"), lambda folded: _have(folded.m2) / folded.count
    ),
    "stddev_over_time": RangeFunction(
        _by_block(statistic.deviation), _need("m2"), lambda folded: np.sqrt(_have(folded.m2) / folded.count)
    ),
    "quantile_over_time": RangeFunction(_quantile, _need("quantile"), lambda folded: _have(folded.quantile)),
    "present_over_time": RangeFunction(_present, _need(), lambda folded: np.ones(folded.count.shape)),
    "absent_over_time": RangeFunction(_present, _need(), lambda folded: np.ones(folded.count.shape)),
    "last_over_time": RangeFunction(
        _end("values", _last), _need("last"), lambda folded: _have(folded.last), keeps_name=True
    ),
    "first_over_time": RangeFunction(
        _end("values", _first), _need("first"), lambda folded: _have(folded.first), keeps_name=True
    ),
    "ts_of_last_over_time": RangeFunction(
        _end("timestamps", _last), _need("last_at"), lambda folded: _have(folded.last_at) / SECOND
    ),
    "ts_of_first_over_time": RangeFunction(
        _end("timestamps", _first), _need("first_at"), lambda folded: _have(folded.first_at) / SECOND
    ),
    "ts_of_min_over_time": RangeFunction(_time_of(statistic.least)),
    "ts_of_max_over_time": RangeFunction(_time_of(statistic.greatest)),
    "mad_over_time": RangeFunction(_by_block(statistic.median_deviation)),
    "rate": RangeFunction(_rate(counter=True, per_second=True)),
    "increase": RangeFunction(_rate(counter=True, per_second=False)),
    "delta": RangeFunction(_rate(counter=False, per_second=False)),
    "irate": RangeFunction(lambda raw: rate.instant_growth(raw.windows, counter=True)),
    "idelta": RangeFunction(lambda raw: rate.instant_growth(raw.windows, counter=False)),
    "resets": RangeFunction(lambda raw: rate.resets(raw.windows)),
    "changes": RangeFunction(lambda raw: rate.changes(raw.windows)),
    "deriv": RangeFunction(_deriv),
    "predict_linear": RangeFunction(_predict),
    "double_exponential_smoothing": RangeFunction(
        lambda raw: rate.smoothed(raw.windows, raw.scalars[0], raw.scalars[1])
    ),
}
