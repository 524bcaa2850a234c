"""Values as Go's fmt prints them: `%v`, `printf` and its verbs."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from modelmeter.template.node import TemplateError

_VERB = re.compile(r"%([-+# 0]*)(\*|\d+)?(?:\.(\*|\d+)?)?([a-zA-Z%])|%")
_WIDTH_LIMIT = 1000
_PLAIN_DIGITS = 6
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Instant:
    """A time.Time in UTC; Unix milliseconds."""

    millis: int

    @property
    def at(self) -> datetime:
        return _EPOCH + timedelta(milliseconds=self.millis)

    def __str__(self) -> str:
        fraction = f"{self.millis % 1000:03d}".rstrip("0")
        return self.at.strftime("%Y-%m-%d %H:%M:%S") + (f".{fraction}" if fraction else "") + " +0000 UTC"


@dataclass(frozen=True, slots=True)
class Duration:
    """A time.Duration in nanoseconds."""

    nanos: int

    def __str__(self) -> str:
        sign, size = ("-", -self.nanos) if self.nanos < 0 else ("", self.nanos)
        if size == 0:
            return "0s"
        for unit, width in (("ns", 1), ("µs", 1000), ("ms", 1_000_000)):
            if size < width * 1000:
                return sign + _trimmed(size, width) + unit
        minutes, rest = divmod(size, 60_000_000_000)
        hours, minutes = divmod(minutes, 60)
        shown = (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "")
        return sign + shown + _trimmed(rest, 1_000_000_000) + "s"


def _trimmed(size: int, width: int) -> str:
    whole, rest = divmod(size, width)
    digits = f"{rest:0{len(str(width)) - 1}d}".rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)


def special(value: float, *, plus: bool = False) -> str | None:
    """NaN and the infinities, as Go writes them; None for a finite number."""
    if math.isnan(value):
        return "+NaN" if plus else "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return None


def format_float(value: float) -> str:
    """`%v` of a float64: the shortest digits, an exponent below 1e-4 and from 1e6 on."""
    odd = special(value)
    if odd is not None:
        return odd
    mantissa, _, exponent = f"{value!r}".partition("e")
    digits = mantissa.lstrip("-").replace(".", "").lstrip("0") or "0"
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    whole = mantissa.lstrip("-").partition(".")[0]
    leading = len(mantissa.lstrip("-").partition(".")[2]) - len(mantissa.lstrip("-").partition(".")[2].lstrip("0"))
    power = int(exponent or 0) + (len(whole) - 1 if whole.strip("0") else -leading - 1)
    digits = digits.rstrip("0") or "0"
    sign = "-" if value < 0 else ""
    if power < -4 or power >= _PLAIN_DIGITS:
        tail = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{tail}e{'-' if power < 0 else '+'}{abs(power):02d}"
    if power < 0:
        return f"{sign}0.{'0' * (-power - 1)}{digits}"
    digits = digits.ljust(power + 1, "0")
    tail = f".{digits[power + 1 :]}" if len(digits) > power + 1 else ""
    return f"{sign}{digits[: power + 1]}{tail}"


def general(value: float, precision: int) -> str:
    """`%.4g`."""
    return special(value) or f"{value:.{precision}g}"


def show(value: object) -> str:
    """`%v`."""
    match value:
        case None:
            return "<no value>"
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case float():
            return format_float(value)
        case dict():
            return "map[" + " ".join(f"{show(key)}:{show(value[key])}" for key in sorted(value)) + "]"
        case list() | tuple():
            return "[" + " ".join(show(one) for one in value) + "]"
        case _:
            return str(value)


def sprint(values: Sequence[object]) -> str:
    """Go's Sprint: a space between operands when neither is a string."""
    parts: list[str] = []
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            parts.append(" ")
        parts.append("<nil>" if value is None else show(value))
    return "".join(parts)


def kind_of(value: object) -> str:
    match value:
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float64"
        case str():
            return "string"
        case dict():
            return "map[string]string"
        case Instant():
            return "time.Time"
        case Duration():
            return "time.Duration"
        case None:
            return "<nil>"
        case _:
            return "template.queryResult" if isinstance(value, list) else "*template.sample"


def sprintf(form: str, values: Sequence[object]) -> str:
    """Go's Sprintf for the verbs that print numbers and texts; what does not fit shows as `%!d(string=x)`."""
    rest = list(values)
    used = [0]

    def star(text: str | None) -> int | None:
        if text != "*":
            return None if text is None else int(text)
        used[0] += 1
        value = rest[used[0] - 1] if used[0] <= len(rest) else 0
        return value if isinstance(value, int) else 0

    def one(found: re.Match[str]) -> str:
        verb = found[4]
        if verb is None:
            return "%!(NOVERB)"
        if verb == "%":
            return "%"
        width = star(found[2])
        precision = star(found[3])
        if precision is None and "." in found[0]:
            precision = 0
        if max(width or 0, precision or 0) > _WIDTH_LIMIT:
            raise TemplateError(f"a width over {_WIDTH_LIMIT} in printf")
        if used[0] >= len(rest):
            return f"%!{verb}(MISSING)"
        used[0] += 1
        value = rest[used[0] - 1]
        shown = _verb(verb, found[1], precision, value)
        if shown is None:
            return f"%!{verb}({kind_of(value)}={show(value)})" if value is not None else f"%!{verb}(<nil>)"
        return _pad(shown, found[1], width, numeric=isinstance(value, int | float) and verb not in "sqv")

    text = _VERB.sub(one, form)
    if used[0] < len(rest):
        extra = ", ".join(f"{kind_of(value)}={show(value)}" for value in rest[used[0] :])
        text += f"%!(EXTRA {extra})"
    return text


def _pad(shown: str, flags: str, width: int | None, *, numeric: bool) -> str:
    if width is None or len(shown) >= width:
        return shown
    if "-" in flags:
        return shown.ljust(width)
    if "0" in flags and numeric:
        sign = shown[0] if shown[:1] in "+- " and shown[:1] else ""
        return sign + shown[len(sign) :].rjust(width - len(sign), "0")
    return shown.rjust(width, "0" if "0" in flags else " ")


def _verb(verb: str, flags: str, precision: int | None, value: object) -> str | None:
    """None when the verb is not for such a value."""
    plus = "+" if "+" in flags else " " if " " in flags else ""
    match verb, value:
        case "v", float() if precision is None:
            return _signed(format_float(value), "" if plus == "+" else plus)
        case "v", float():
            return _signed(general(value, precision or 0), plus)
        case "v", int() if not isinstance(value, bool):
            return _signed(str(value), plus)
        case ("v", _):
            return "<nil>" if value is None else show(value)
        case "t", bool():
            return show(value)
        case "T", _:
            return kind_of(value)
        case (("s" | "q" | "x" | "X"), str()):
            cut = value if precision is None or verb in "xX" else value[:precision]
            if verb == "s":
                return cut
            if verb == "q":
                return f"`{cut}`" if "#" in flags and "`" not in cut else json.dumps(cut, ensure_ascii=False)
            found = cut.encode().hex()
            return found.upper() if verb == "X" else found
        case "s", Instant() | Duration():
            return str(value)
        case (("d" | "x" | "X" | "o" | "b" | "c" | "q" | "U"), int()) if not isinstance(value, bool):
            return _integer(verb, flags, plus, value)
        case (("e" | "E" | "f" | "F" | "g" | "G"), float()):
            odd = special(value)
            if odd is not None:
                return _signed(odd, plus)
            if verb in "gG" and precision is None:
                found = format_float(value)
                return _signed(found.upper() if verb == "G" else found, plus)
            return _signed(f"{value:.{6 if precision is None else precision}{verb}}", plus)
        case _:
            return None


def _integer(verb: str, flags: str, plus: str, value: int) -> str:
    if verb == "c":
        return chr(value)
    if verb == "q":
        return f"'{chr(value)}'"
    if verb == "U":
        return f"U+{value:04X}"
    prefix = {"x": "0x", "X": "0X", "o": "0", "b": "0b"}.get(verb, "") if "#" in flags else ""
    digits = format(abs(value), verb)
    return ("-" if value < 0 else plus) + prefix + digits


def _signed(text: str, plus: str) -> str:
    return text if text[:1] in "+-" else plus + text
