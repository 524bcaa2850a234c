"""Comparisons agree with SciPy on the raw values, or on the values of the bins; what cannot be said is null."""

import itertools
import json
import math
import warnings
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from modelmeter import comparison, distance, drift, rollup, significance
from modelmeter.comparison import Comparison
from modelmeter.direction import Directions, split_patterns
from modelmeter.overlay import overlay, tabulate
from modelmeter.rollup import Rollups
from modelmeter.sketch import encode, sketch_of

METRIC = 7
Floats = distance.Floats


def fold(values: Sequence[float] | Floats, metric: int = METRIC) -> Rollups:
    """One merged partial of these values, in their order, a microsecond apart."""
    array = np.asarray(values, np.float64)
    if not array.size:
        return rollup.EMPTY
    same = np.zeros(array.size, np.int64)
    return rollup.fold_metric(same.astype(np.int32), metric, same, np.arange(array.size), array, np.zeros(1, np.int64))


def compare(a: Sequence[float] | Floats, b: Sequence[float] | Floats, **more: Any) -> Comparison:
    direction = more.pop("direction", None)
    pairs = comparison.pair_up(fold(a), fold(b), (0.5,))
    return comparison.compare(pairs, {METRIC: direction}, **more)[METRIC]


def binned(values: Floats) -> Floats:
    """The values as the sketch knows them."""
    return distance.value_of(distance.bin_of(values))


def samples(seed: int) -> tuple[Floats, Floats]:
    """Two sides of many shapes: normal, skewed, discrete, with zeros and negatives."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 400, 2)
    shape = int(rng.integers(5))
    sides = []
    for size in sizes.tolist():
        if shape == 0:
            drawn = rng.normal(10, 2, size)
        elif shape == 1:
            drawn = rng.lognormal(2, 0.6, size)
        elif shape == 2:
            drawn = rng.integers(0, 4, size).astype(float)
        elif shape == 3:
            drawn = rng.normal(0, 1, size)
        else:
            drawn = np.round(rng.beta(8, 2, size), 2)
        sides.append(drawn + float(rng.choice([0, 0, 0.3, -1])))
    return sides[0], sides[1]


@pytest.mark.parametrize("seed", range(40))
def test_every_number_is_scipys(seed: int) -> None:
    a, b = samples(seed)
    found = compare(a, b)
    assert found.difference == pytest.approx(b.mean() - a.mean(), rel=1e-9, abs=1e-12)
    if found.welch is not None:
        expected = stats.ttest_ind(b, a, equal_var=False)
        assert found.welch.statistic == pytest.approx(expected.statistic, rel=1e-9, abs=1e-9)
        assert found.welch.df == pytest.approx(expected.df, rel=1e-9)
        assert found.welch.p == pytest.approx(expected.pvalue, rel=1e-7, abs=1e-300)
        interval = expected.confidence_interval(0.95)
        assert found.interval == pytest.approx((interval.low, interval.high), rel=1e-9, abs=1e-12)
    x, y = binned(a), binned(b)
    if found.mann_whitney is not None:
        ranks = stats.mannwhitneyu(y, x, method="asymptotic", use_continuity=True)
        assert found.mann_whitney.statistic == ranks.statistic
        assert found.mann_whitney.p == pytest.approx(ranks.pvalue, rel=1e-7, abs=1e-300)
    larger = np.sign(y[:, None] - x[None, :]).mean()
    assert found.cliffs_delta == pytest.approx(larger, abs=1e-12)
    pooled = math.sqrt(((a.size - 1) * a.var(ddof=1) + (b.size - 1) * b.var(ddof=1)) / (a.size + b.size - 2))
    assert found.cohens_d == pytest.approx((b.mean() - a.mean()) / pooled, rel=1e-9, abs=1e-12)
    assert found.ks is not None
    on_bins = stats.ks_2samp(y, x, method="asymp")
    assert found.ks.statistic == pytest.approx(on_bins.statistic, abs=1e-12)
    if 1 / (1 / a.size + 1 / b.size) >= 8:
        # SciPy rounds the size that both samples together count as; where it matters, the two agree better.
        assert found.ks.p == pytest.approx(on_bins.pvalue, abs=0.01 if on_bins.pvalue < 0.1 else 0.03)
    assert found.wasserstein == pytest.approx(stats.wasserstein_distance(x, y), rel=1e-9, abs=1e-12)
    assert found.a is not None
    assert found.b is not None
    assert (found.a.count, found.b.count) == (a.size, b.size)


@pytest.mark.parametrize("seed", range(10))
def test_ks_of_bins_is_that_of_the_raw_values_within_a_bin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.lognormal(2, 0.6, 4000), rng.lognormal(2.1, 0.6, 4000)
    found = compare(a, b)
    assert found.ks is not None
    raw = stats.ks_2samp(b, a).statistic
    widest = np.histogram(np.log2(a), bins=np.arange(-2, 8, 1 / 32))[0].max() / a.size
    assert raw - widest <= found.ks.statistic <= raw + 1e-12


def test_mann_whitney_of_bins_is_close_to_that_of_the_raw_values() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.lognormal(2, 0.6, 1000), rng.lognormal(2.1, 0.6, 1000)
    found = compare(a, b)
    assert found.mann_whitney is not None
    raw = stats.mannwhitneyu(b, a)
    assert found.mann_whitney.statistic == pytest.approx(raw.statistic, rel=0.005)
    assert found.mann_whitney.p == pytest.approx(raw.pvalue, rel=0.2)


numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, 1.7e308, -1.7e308, 5e-324, 0.1]),
    st.floats(-1e3, 1e3),
)
side = st.one_of(st.lists(numbers, max_size=40), st.builds(lambda value, n: [value] * n, numbers, st.integers(0, 60)))


@settings(max_examples=300, deadline=None)
@given(side, side, st.sampled_from(["higher", "lower", None]))
@example([1.7e308] * 40, [-1.7e308] * 40, "higher")
@example([5e-324] * 40, [0.0] * 40, "lower")
@example([0.1] * 50, [0.1] * 31, None)
@example([1e200, -1e200] * 20, [1.0] * 40, None)
@example([-1.7e308, 1.7e308] * 20, [0.0] * 40, None)
def test_whatever_comes_there_is_no_nan_and_no_warning(a: list[float], b: list[float], direction: str | None) -> None:
    if not a and not b:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare(a, b, direction=direction, min_samples=2, histogram_bins=60)

    def check(value: object) -> None:
        if isinstance(value, float):
            assert math.isfinite(value)
        elif isinstance(value, dict):
            [check(one) for one in value.values()]  # type: ignore[func-returns-value]
        elif isinstance(value, list | tuple):
            [check(one) for one in value]  # type: ignore[func-returns-value]

    shown = msgspec.to_builtins(found)
    check(shown)
    json.dumps(shown, allow_nan=False)
    assert found.reason
    for name in ("difference", "interval", "welch", "mann_whitney", "cohens_d", "wasserstein"):
        if shown[name] is None:
            assert found.missing.get(name) or found.missing["distances"], name
    assert found.histogram is not None
    assert (sum(found.histogram.a), sum(found.histogram.b)) == (len(a), len(b))
    assert len(found.histogram.a) <= 60
    assert found.histogram.edges == sorted(found.histogram.edges)
    assert (found.histogram.edges[0], found.histogram.edges[-1]) == (min([*a, *b]), max([*a, *b]))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40), st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40))
def test_exchanging_the_sides_turns_the_signs_and_no_p(a: list[float], b: list[float]) -> None:
    one, other = compare(a, b), compare(b, a)
    assert one.difference == -(other.difference or 0.0)
    assert one.cliffs_delta == pytest.approx(-(other.cliffs_delta or 0.0))
    for name in ("welch", "mann_whitney", "ks"):
        test, back = getattr(one, name), getattr(other, name)
        assert (test is None) == (back is None)
        assert test is None or test.p == pytest.approx(back.p)


def test_sides_folded_in_parts_give_the_same() -> None:
    rng = np.random.default_rng(11)
    a, b = rng.lognormal(2, 0.6, 900), rng.lognormal(2.2, 0.6, 700)
    parts = rollup.merge(rollup.concat([fold(part) for part in np.split(a, 9)]))
    whole = compare(a, b)
    found = comparison.compare(comparison.pair_up(parts, fold(b), (0.5,)), {})[METRIC]
    assert found.mann_whitney == whole.mann_whitney
    assert found.psi == whole.psi
    assert found.welch is not None
    assert whole.welch is not None
    assert found.welch.p == pytest.approx(whole.welch.p, rel=1e-6)


def test_zero_variance_is_zero_though_rounding_says_otherwise() -> None:
    found = compare([0.1] * 999, [0.1] * 50)
    assert found.welch is None
    assert found.missing["welch"] == found.missing["interval"] == "no side varies"
    assert found.missing["mann_whitney"] == "all values fall into one bin"
    assert (found.difference, found.psi, found.wasserstein) == (0, 0, 0)
    assert (found.verdict, found.p) == ("no difference", None)


def test_a_lone_value_and_an_empty_side_are_too_few_with_reasons() -> None:
    lone = compare([1.0], [2.0] * 50)
    assert lone.verdict == "too few samples"
    assert lone.missing["welch"] == "needs two values on each side"
    assert "30 are needed on each side" in lone.reason
    empty = compare([], [2.0] * 50)
    assert empty.verdict == "too few samples"
    assert (empty.a, empty.difference, empty.psi) == (None, None, None)
    assert empty.missing["distances"] == "a has no value"


def judged(a: Floats, b: Floats, direction: str | None = "higher", **more: Any) -> str:
    return compare(a, b, direction=direction, **more).verdict


def test_the_verdict_follows_its_rule() -> None:
    rng = np.random.default_rng(5)
    base, up = rng.normal(10, 1, 500), rng.normal(11, 1, 500)
    assert judged(base, up) == "better"
    assert judged(base, up, "lower") == "worse"
    assert judged(up, base) == "worse"
    assert judged(base, up, None) == "different"
    assert judged(base, rng.normal(10, 1, 500)) == "no difference"
    assert judged(base[:29], up) == "too few samples"
    assert judged(base[:29], up, min_samples=29) == "better"


def test_a_difference_that_is_no_chance_but_negligible_is_none() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(10, 1, 100_000), rng.normal(10.05, 1, 100_000)
    found = compare(a, b, direction="higher")
    assert found.p is not None
    assert found.p < 1e-9
    assert found.verdict == "no difference"
    assert "negligible" in found.reason
    assert judged(a, b, min_effect=0) == "better"


def test_outliers_that_hide_a_shift_from_the_mean_do_not_hide_it_from_the_verdict() -> None:
    rng = np.random.default_rng(7)
    a, b = rng.lognormal(2, 0.3, 300), rng.lognormal(2.4, 0.3, 300)
    a[:2] = 5000.0
    found = compare(a, b, direction="lower")
    assert found.welch is not None
    assert found.welch.p > 0.05
    assert found.verdict == "worse"


def test_mean_and_ranks_that_disagree_are_only_different() -> None:
    a = np.concatenate((np.full(900, 1.0), np.full(100, 2.0)))
    b = np.concatenate((np.full(700, 0.9), np.full(300, 9.0)))
    found = compare(a, b, direction="higher")
    assert found.difference is not None
    assert found.difference > 0 > (found.cliffs_delta or 0)
    assert (found.verdict, "opposite ways" in found.reason) == ("different", True)


def test_constants_that_differ_are_told_apart() -> None:
    found = compare([0.7] * 40, [0.5] * 40, direction="higher")
    assert found.welch is None
    assert found.verdict == "worse"


def test_many_metrics_are_many_tests() -> None:
    rng = np.random.default_rng(0)
    sides = [rollup.concat([fold(rng.normal(0, 1, 100), metric) for metric in range(1, 301)]) for _ in range(2)]
    pairs = comparison.pair_up(sides[0], sides[1], ())
    together = comparison.compare(pairs, dict.fromkeys(pairs), min_effect=0)
    alone = [comparison.compare({metric: pair}, {}, min_effect=0)[metric] for metric, pair in pairs.items()]
    assert sum(one.verdict == "different" for one in alone) >= 3, "three hundred metrics raise some false alarms"
    assert {one.verdict for one in together.values()} == {"no difference"}


def test_the_smaller_of_two_p_values_counts_twice() -> None:
    rng = np.random.default_rng(12)
    found = compare(rng.normal(10, 1, 100), rng.normal(10.3, 1, 100))
    assert found.welch is not None
    assert found.mann_whitney is not None
    assert found.p == 2 * min(found.welch.p, found.mann_whitney.p)
    constants = compare([0.7] * 40, [0.5] * 40)
    assert constants.mann_whitney is not None
    assert constants.p == constants.mann_whitney.p


@settings(max_examples=100)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_the_definition_rejects(values: list[float]) -> None:
    adjusted = significance.holm(values)
    ordered = sorted(range(len(values)), key=values.__getitem__)
    for level in (0.01, 0.05, 0.5):
        rejected = set()
        for rank, number in enumerate(ordered):
            if values[number] * (len(values) - rank) >= level:
                break
            rejected.add(number)
        assert {number for number, p in enumerate(adjusted) if p < level} == rejected


def test_false_alarms_keep_to_five_percent() -> None:
    rng = np.random.default_rng(2026)
    rounds = 400
    alarms = sum(
        judged(rng.lognormal(2, 0.6, 60), rng.lognormal(2, 0.6, 60), min_effect=0) != "no difference"
        for _ in range(rounds)
    )
    assert alarms <= 0.05 * rounds + 3 * math.sqrt(0.05 * 0.95 * rounds)


def test_drift_over_time_is_the_score_of_each_window() -> None:
    rng = np.random.default_rng(8)
    reference = rng.normal(10, 1, 3000)
    windows = [rng.normal(10 + number / 3, 1, 200 + number) for number in range(7)]
    windows[4] = np.zeros(0)
    parts = [(number, part) for number, values in enumerate(windows) for part in np.array_split(values, 3) if part.size]
    counts, scores = drift.over_time(
        [encode(sketch_of(part)) for _, part in parts],
        np.array([number for number, _ in parts]),
        len(windows),
        encode(sketch_of(reference)),
    )
    assert counts.tolist() == [values.size for values in windows]
    for number, values in enumerate(windows):
        if not values.size:
            assert np.isnan([scores.psi[number], scores.ks[number], scores.ks_p[number]]).all()
            continue
        bins, both = tabulate([encode(sketch_of(values)), encode(sketch_of(reference))])
        alone = drift.score(both[0], both[1], bins)
        for name in drift.Scores.__slots__:
            assert getattr(scores, name)[number] == pytest.approx(float(getattr(alone, name)), rel=1e-9), name
    assert (np.diff(scores.psi[[0, 2, 3, 6]]) > 0).all()


def test_drift_over_time_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(9)
    sketches = [encode(sketch_of(rng.normal(0, 1, 50))) for _ in range(20)]
    reference = encode(sketch_of(rng.normal(0, 1, 500)))
    whole = drift.over_time(sketches, np.arange(20), 20, reference)
    monkeypatch.setattr(drift, "_CELLS_AT_ONCE", 1000)
    parts = drift.over_time(sketches, np.arange(20), 20, reference)
    assert (whole[0] == parts[0]).all()
    assert (whole[1].psi == parts[1].psi).all()


def test_drift_without_a_reference_or_without_a_window_is_unknown() -> None:
    one = encode(sketch_of(np.ones(3)))
    counts, scores = drift.over_time([one], np.zeros(1, np.int64), 2, b"")
    assert counts.tolist() == [3, 0]
    assert np.isnan(scores.psi).all()
    counts, scores = drift.over_time([], np.zeros(0, np.int64), 0, b"")
    assert counts.size == scores.psi.size == 0


@pytest.mark.parametrize(
    ("counts", "psi", "p", "verdict"),
    [
        ((29, 1000), 3.0, 0.0, "too few samples"),
        ((1000, 29), 3.0, 0.0, "too few samples"),
        ((1000, 1000), 3.0, 0.06, "no drift"),
        ((1000, 1000), 0.09, 0.0, "no drift"),
        ((1000, 1000), 0.1, 0.0, "some drift"),
        ((1000, 1000), 0.25, 0.0, "strong drift"),
    ],
)
def test_drift_is_judged_by_psi_unless_chance_explains_it(
    counts: tuple[int, int], psi: float, p: float, verdict: str
) -> None:
    assert drift.judge(*counts, psi, p, 30)[0] == verdict


def test_the_histograms_of_an_overlay_are_about_equally_wide_and_exact() -> None:
    rng = np.random.default_rng(10)
    a, b = rng.normal(100, 10, 5000), rng.normal(110, 10, 5000)
    bins, counts = tabulate([encode(sketch_of(a)), encode(sketch_of(b))])
    extremes = (min(a.min(), b.min()), max(a.max(), b.max()))
    found = overlay(counts[0], counts[1], bins, extremes, 60)
    edges = np.array(found.edges)
    assert found.a == [
        int(((a > low) & (a <= high)).sum()) + (low == a.min()) for low, high in itertools.pairwise(edges)
    ]
    inner = np.diff(edges)[1:-1]
    assert inner.max() < 4 * (np.quantile(b, 0.995) - np.quantile(a, 0.005)) / 60


def test_a_name_beats_a_pattern_and_lower_beats_higher() -> None:
    directions = Directions(split_patterns("*accuracy*,*_score,drift_score"), split_patterns("*drift*, *_time"))
    assert directions.of("prediction_accuracy") == directions.of("Prediction_Accuracy") == "higher"
    assert directions.of("accuracy_drift") == "lower"
    assert directions.of("drift_score") == "higher"
    assert directions.of("inference_time") == "lower"
    assert directions.of("timeout") is None
    assert split_patterns("") == ()
    with pytest.raises(ValueError, match="a name is empty"):
        split_patterns("a,,b")
