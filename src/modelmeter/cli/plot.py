"""Small plots of block characters; they say the same without colours."""

import itertools
from collections.abc import Sequence

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_ONLY_A, _ONLY_B, _BOTH = "░", "▒", "█"
LEGEND = f"{_ONLY_A} a   {_ONLY_B} b   {_BOTH} both"


def sparkline(values: Sequence[float | None], top: float | None = None) -> str:
    """A letter for each value, from 0 up to `top` (the largest); a dot where there is none."""
    known = [value for value in values if value is not None]
    highest = max(known, default=0.0) if top is None else top
    if highest <= 0:
        return "".join("·" if value is None else _EIGHTHS[1] for value in values)
    return "".join("·" if value is None else _EIGHTHS[1 + min(int(value / highest * 7.999), 7)] for value in values)


def shorten(values: Sequence[float | None], width: int) -> list[float | None]:
    """At most `width` values: the largest of each run of neighbours."""
    if len(values) <= width:
        return [*values]
    borders = [number * len(values) // width for number in range(width + 1)]
    return [
        max((value for value in values[low:high] if value is not None), default=None)
        for low, high in itertools.pairwise(borders)
    ]


def distributions(edges: Sequence[float], a: Sequence[int], b: Sequence[int], width: int, height: int) -> list[str]:
    """Two histograms on common edges over each other, `height` lines of `width` letters, and a line of the axis.

    The bars are densities, each side's area is the same; the tails beyond the last bins of 0.5 % are left out.
    """
    low, high = _middle(edges, a, b)
    if not low < high:
        return [f"all values are {low:g}"]
    columns = [
        (_density(edges, side, low + (high - low) * at / width, low + (high - low) * (at + 1) / width))
        for side in (a, b)
        for at in range(width)
    ]
    of_a, of_b = columns[:width], columns[width:]
    highest = max(columns)
    lines = []
    for level in range(height, 0, -1):
        line = level - 0.5
        lines.append(
            "".join(
                _letter(x / highest * height > line, y / highest * height > line)
                for x, y in zip(of_a, of_b, strict=True)
            ).rstrip()
        )
    left, right = f"{low:.4g}", f"{high:.4g}"
    lines.append(left + right.rjust(width - len(left)))
    return lines


def _letter(in_a: bool, in_b: bool) -> str:
    if in_a and in_b:
        return _BOTH
    return _ONLY_A if in_a else _ONLY_B if in_b else " "


def _middle(edges: Sequence[float], a: Sequence[int], b: Sequence[int]) -> tuple[float, float]:
    """From where to where it is worth to draw: without a wide tail at either end that holds hardly a value."""
    first, last = 0, len(a)
    if last - first > 2:
        least = 0.01 * (sum(a) + sum(b))
        first += a[0] + b[0] < least
        last -= a[-1] + b[-1] < least
    return edges[first], edges[last]


def _density(edges: Sequence[float], counts: Sequence[int], low: float, high: float) -> float:
    """The share of a side between `low` and `high`, each bin's counts spread evenly."""
    total = sum(counts)
    share = 0.0
    for (left, right), count in zip(itertools.pairwise(edges), counts, strict=True):
        common = min(high, right) - max(low, left)
        if count and common > 0:
            share += count / total * common / (right - left)
    return share
