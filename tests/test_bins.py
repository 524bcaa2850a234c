"""Quantiles of many sketches at once are those of each by itself."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmeter import bins, sketch

VALUES = st.floats(allow_nan=False, allow_infinity=False, width=64)
QS = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)


def check(groups: Sequence[Sequence[Sequence[float]]]) -> None:
    """Each cell is several parts, each a sketch."""
    cells = [np.array([value for part in parts for value in part], np.float64) for parts in groups]
    encoded, cell = [], []
    for number, parts in enumerate(groups):
        for part in parts:
            encoded.append(sketch.encode(sketch.sketch_of(np.array(part, np.float64))) if part else b"")
            cell.append(number)
    counted = bins.count_bins(encoded, np.array(cell, np.int64))
    assert int(counted.count.sum()) == sum(one.size for one in cells)
    low = np.array([one.min() if one.size else np.nan for one in cells])
    high = np.array([one.max() if one.size else np.nan for one in cells])
    found = bins.quantiles(counted, QS, low, high)
    for number, values in enumerate(cells):
        if values.size:
            alone = sketch.quantiles(sketch.sketch_of(values), QS, float(values.min()), float(values.max()))
            assert found[number].tolist() == alone
        else:
            assert np.isnan(found[number]).all()


@given(st.lists(st.lists(st.lists(VALUES, max_size=12), min_size=1, max_size=4), min_size=1, max_size=6))
def test_each_cell_has_the_quantiles_of_its_own_sketch(groups: list[list[list[float]]]) -> None:
    check(groups)


def test_a_table_too_large_to_be_filled_is_sorted_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    groups = [[rng.normal(size=30).tolist(), rng.lognormal(size=200).tolist(), [0.0]] for _ in range(20)]
    check(groups)
    monkeypatch.setattr(bins, "_DENSE_CELLS", 0)
    check(groups)
    check([[[-1.7e308, 5e-324, -5e-324, 1.7e308, 0.0]]])
