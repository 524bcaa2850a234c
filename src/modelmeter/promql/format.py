"""Numbers and results as Prometheus writes them, to the letter, and fast for millions of samples."""

import json
from collections.abc import Sequence
from decimal import Decimal

import msgspec
import numpy as np
import numpy.typing as npt

# Outside of these the encoder and Go part ways, and `format_value` decides.
_PLAIN_FROM, _PLAIN_BELOW = 1e-3, 1e15


def format_value(value: float) -> str:
    """A sample's value in Prometheus' JSON: the shortest digits, exponents only below 1e-6 and from 1e21."""
    size = abs(value)
    if size != 0 and (size < 1e-6 or size >= 1e21) and np.isfinite(value):
        return repr(float(value)).removesuffix(".0")
    return format_fixed(value)


def format_fixed(value: float) -> str:
    """Go's `strconv.FormatFloat(value, 'f', -1, 64)`: the shortest digits and never an exponent."""
    if np.isnan(value):
        return "NaN"
    if np.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(float(value))
    if "e" in text:
        text = format(Decimal(text), "f")
    return text.removesuffix(".0")


def format_general(value: float) -> str:
    """Go's `%g`: the shortest digits, exponents below 1e-4 and from 1e21."""
    if not np.isfinite(value):
        return format_fixed(value)
    text = repr(float(value))
    if "e" in text and 1e-4 <= abs(value) < 1e21:
        return format_fixed(value)
    return text.removesuffix(".0")


def format_open_metrics(value: float) -> str:
    """A number as OpenMetrics writes it into a label: always with a fraction or an exponent."""
    text = format_value(value)
    return text if any(mark in text for mark in ".eNI") else text + ".0"


def format_instant(instant: int) -> str:
    """Microseconds as JSON seconds: whole, or with 3 digits, or with 6 when finer than milliseconds."""
    sign, size = ("-", -instant) if instant < 0 else ("", instant)
    seconds, rest = divmod(size, 1_000_000)
    if rest == 0:
        return f"{sign}{seconds}"
    if rest % 1_000 == 0:
        return f"{sign}{seconds}.{rest // 1_000:03d}"
    return f"{sign}{seconds}.{rest:06d}"


def quote(text: str) -> str:
    """A string in double quotes, escaped as Go's %q does for printable text."""
    return json.dumps(text, ensure_ascii=False)


def format_values(values: npt.NDArray[np.float64]) -> list[str]:
    """Many values at once; the same text as `format_value` of each."""
    if values.size == 0:
        return []
    with np.errstate(invalid="ignore"):
        size = np.abs(values)
        odd = ~((size >= _PLAIN_FROM) & (size < _PLAIN_BELOW)) & (size != 0)
    plain = np.where(odd, 0.0, values)
    text = msgspec.json.encode(plain.tolist()).decode()[1:-1]
    parts = (text + ",").replace(".0,", ",")[:-1].split(",")
    for index in np.flatnonzero(odd).tolist():
        parts[index] = format_value(values[index])
    return parts


def format_points(prefixes: Sequence[str], values: npt.NDArray[np.float64]) -> str:
    """`[1435781430,"1"],[1435781445,"2"]`. Each prefix is what `instant_prefix` gives for its instant."""
    parts = [""] * (2 * len(prefixes))
    parts[0::2] = prefixes
    parts[1::2] = format_values(values)
    return "".join(parts)[3:] + '"]' if parts else ""


def instant_prefix(instant: int) -> str:
    return f'"],[{format_instant(instant)},"'
