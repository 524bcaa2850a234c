"""Where an evaluation gets its data: raw samples always, folded windows when the source has them ready.

All times are UTC microseconds. A range is `(t - range, t]`: open on the left, as in Prometheus 3. Every series
carries all its labels, `__name__` among them; no two of one answer carry the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from modelmeter.matcher import Matcher
from modelmeter.promql.labels import Labels

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

Statistic = Literal["count", "sum", "m2", "min", "max", "first", "last", "first_at", "last_at", "quantile"]


@dataclass(frozen=True, slots=True)
class Samples:
    """Raw samples, series after series: those of series i are `[offsets[i]:offsets[i + 1]]`, ascending in time.

    `timestamps` and `values` are flat, `offsets` has one more entry than `labels`. Series without a sample are left
    out or empty, as is easier. `infos` say what is missing.
    """

    labels: Sequence[Labels]
    offsets: Ints
    timestamps: Ints
    values: Floats
    infos: Sequence[str] = field(default=())


@dataclass(frozen=True, slots=True)
class Folded:
    """Statistics of windows, each of shape (series, windows). Where `count` is 0 the others mean nothing.

    Those that were not asked for may be None. `m2` is the sum of squared deviations from the mean. `quantiles` are for
    the asked q, one per window. `first_at` and `last_at` are microseconds. `infos` say what is not exact.
    """

    labels: Sequence[Labels]
    count: Ints
    sum: Floats | None = None
    m2: Floats | None = None
    min: Floats | None = None
    max: Floats | None = None
    first: Floats | None = None
    last: Floats | None = None
    first_at: Ints | None = None
    last_at: Ints | None = None
    quantile: Floats | None = None
    infos: Sequence[str] = field(default=())


@dataclass(frozen=True, slots=True)
class Histograms:
    """Counts of values in exponential bins, all series and windows on the same bins.

    `bins` (bins,) are the numbers of `distance.bin_of`, ascending, only those in use. `counts` is (series, windows,
    bins).
    """

    labels: Sequence[Labels]
    bins: Ints
    counts: Ints
    infos: Sequence[str] = field(default=())


class Source(Protocol):
    """What an evaluation reads from. The methods raise `TooMuchData` rather than load more than the limit."""

    def select(self, matchers: Sequence[Matcher], start: int, end: int, sample_limit: int) -> Samples:
        """The raw samples in `(start, end]` of all series that match."""
        ...

    def fold(
        self,
        matchers: Sequence[Matcher],
        range_: int,
        ends: Ints,
        statistics: frozenset[Statistic],
        quantile: Floats | None,
    ) -> Folded | None:
        """The statistics of the windows `(end - range_, end]`; None when raw samples must do.

        `ends` is ascending, or constant. `quantile` holds a q in [0, 1] for each window when "quantile" is asked for.
        """
        ...

    def histograms(self, matchers: Sequence[Matcher], range_: int, ends: Ints) -> Histograms | None:
        """The histograms of the windows `(end - range_, end]`; None when they must be made from raw samples."""
        ...
