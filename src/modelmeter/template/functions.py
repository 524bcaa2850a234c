"""The functions of templates: Go's own, and Prometheus'. Regular expressions are the Rust crate's, close to RE2."""

import html
import ipaddress
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, quote_plus, urlsplit

import polars as pl

from modelmeter.template.gofmt import Duration, Instant, general, kind_of, show, sprint, sprintf
from modelmeter.template.node import TemplateError
from modelmeter.window import SECOND, parse_duration

Function = Callable[..., object]
_NANOS = 1e9
_TEXT_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """One element of what `query` gives."""

    labels: Mapping[str, str]
    value: float


def is_true(value: object) -> bool:
    """Go's notion: neither zero nor empty."""
    match value:
        case None:
            return False
        case bool() | int() | float():
            return value != 0
        case str() | list() | tuple() | dict():
            return len(value) > 0
        case _:
            return True


def _float(value: object) -> float:
    match value:
        case bool():
            raise TemplateError(f"can't convert {kind_of(value)} to float")
        case int() | float():
            return float(value)
        case Duration():
            return value.nanos / _NANOS
        case str():
            try:
                if value != value.strip() or "_" in value:
                    raise ValueError
                return float(value)
            except ValueError:
                raise TemplateError(f"{json.dumps(value)} is no number") from None
        case _:
            raise TemplateError(f"can't convert {kind_of(value)} to float")


_LARGE = ("k", "M", "G", "T", "P", "E", "Z", "Y")
_SMALL = ("m", "u", "n", "p", "f", "a", "z", "y")


def _humanize(value: object) -> str:
    number = _float(value)
    if number == 0 or not math.isfinite(number):
        return general(number, 4)
    return _scaled(number, "")


def _scaled(number: float, unit: str) -> str:
    prefix = ""
    if abs(number) >= 1:
        for prefix_ in _LARGE:
            if abs(number) < 1000:
                break
            prefix, number = prefix_, number / 1000
    else:
        for prefix_ in _SMALL:
            if abs(number) >= 1:
                break
            prefix, number = prefix_, number * 1000
    return f"{general(number, 4)}{prefix}{unit}"


def _humanize1024(value: object) -> str:
    number = _float(value)
    if abs(number) <= 1 or not math.isfinite(number):
        return general(number, 4)
    prefix = ""
    for one in _LARGE:
        if abs(number) < 1024:
            break
        prefix, number = f"{one}i", number / 1024
    return f"{general(number, 4)}{prefix}"


def _humanize_duration(value: object) -> str:
    number = _float(value)
    if not math.isfinite(number):
        return general(number, 4)
    if abs(number) < 1:
        return f"{general(number, 4)}s" if number == 0 else _scaled(number, "s")
    sign, size = ("-", -number) if number < 0 else ("", number)
    minutes, seconds = divmod(int(size), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{sign}{days}d {hours}h {minutes}m {seconds}s"
    if hours:
        return f"{sign}{hours}h {minutes}m {seconds}s"
    if minutes:
        return f"{sign}{minutes}m {seconds}s"
    return f"{sign}{general(size, 4)}s"


def _instant(number: float) -> Instant:
    if not math.isfinite(number):
        raise TemplateError("value is NaN or Inf")
    if abs(number * _NANOS) >= 2**63:
        raise TemplateError(f"{show(number)} cannot be represented as a nanoseconds timestamp since it overflows int64")
    return Instant(math.trunc(int(number * _NANOS) / 1_000_000))


def _humanize_timestamp(value: object) -> str:
    number = _float(value)
    return str(_instant(number)) if math.isfinite(number) else general(number, 4)


def _regex(pattern: str) -> None:
    try:
        pl.Series([""], dtype=pl.String).str.contains(pattern, literal=False, strict=True)
    except pl.exceptions.ComputeError:
        raise TemplateError(f"invalid regular expression {pattern!r}") from None


def _match(pattern: str, text: str) -> bool:
    _regex(pattern)
    return bool(pl.Series([text], dtype=pl.String).str.contains(pattern, literal=False)[0])


def _re_replace_all(pattern: str, replacement: str, text: str) -> str:
    _regex(pattern)
    found: str = pl.Series([text], dtype=pl.String).str.replace_all(pattern, replacement, literal=False)[0]
    return found


def _title(text: str) -> str:
    """The first letter of each word large, the others as they are."""
    out, inside = [], False
    for letter in text:
        out.append(letter if inside else letter.upper())
        inside = letter.isalnum() or (inside and letter in "'\u2019_")
    return "".join(out)


def _split_host_port(text: str) -> tuple[str, str] | None:
    host, colon, port = text.rpartition(":")
    if not colon:
        return None
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    return None if ":" in host or "[" in host or "]" in host else (host, port)


def _strip_port(text: str) -> str:
    found = _split_host_port(text)
    return text if found is None else found[0]


def _strip_domain(text: str) -> str:
    host, port = _split_host_port(text) or (text, "")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        short = host.split(".", 1)[0]
        return f"{short}:{port}" if port else short
    return text


def _first(found: Sequence[Sample]) -> Sample:
    if not found:
        raise TemplateError("first() called on vector with no elements")
    return found[0]


def _sort_by_label(label: str, found: Sequence[Sample]) -> list[Sample]:
    return sorted(found, key=lambda one: one.labels.get(label, ""))


def _link(expression: str, tab: str) -> str:
    return f"/graph?g0.expr={quote_plus(expression)}&g0.tab={tab}"


def _parse_duration(text: str) -> float:
    sign = -1 if text.startswith("-") else 1
    try:
        return sign * (0 if text.lstrip("-") == "0" else parse_duration(text.removeprefix("-"))) / SECOND
    except ValueError as error:
        raise TemplateError(str(error)) from None


def _html(*values: object) -> str:
    text = values[0] if len(values) == 1 and isinstance(values[0], str) else sprint(values)
    return html.escape(text, quote=True).replace("&quot;", "&#34;").replace("&#x27;", "&#39;").replace("\0", "\ufffd")


_JS = {"'": "\\'", "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}


def _js(*values: object) -> str:
    text = json.dumps(sprint(values), ensure_ascii=False)[1:-1]
    for mark, escaped in _JS.items():
        text = text.replace(mark, escaped)
    return text


def _len(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, list | tuple | dict):
        return len(value)
    raise TemplateError(f"len of type {kind_of(value)}")


def _index(value: object, *keys: object) -> object:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key, "")
        elif isinstance(value, str | list | tuple) and isinstance(key, int) and not isinstance(key, bool):
            row: Sequence[object] = list(value.encode()) if isinstance(value, str) else value
            if not 0 <= key < len(row):
                raise TemplateError(f"index out of range: {key}")
            value = row[key]
        else:
            raise TemplateError(f"can't index item of type {kind_of(value)} with {kind_of(key)}")
    return value


def _slice(value: object, *bounds: object) -> object:
    if not isinstance(value, str | list | tuple) or len(bounds) > 3:
        raise TemplateError(f"can't slice item of type {kind_of(value)}")
    row = value.encode() if isinstance(value, str) else value
    edges = [bound for bound in bounds if isinstance(bound, int) and 0 <= bound <= len(row)]
    if len(edges) != len(bounds) or edges != sorted(edges):
        raise TemplateError("slice index out of range")
    cut = row[edges[0] if edges else 0 : edges[1] if len(edges) > 1 else len(row)]
    return cut.decode(errors="replace") if isinstance(cut, bytes) else cut


def _basic(value: object) -> str:
    kind = kind_of(value)
    if kind not in ("bool", "int", "float64", "string"):
        raise TemplateError(f"invalid type for comparison: {kind}")
    return kind


def _compare(left: object, right: object) -> int:
    """Below, equal or above. Go compares no int with a float: write 5.0."""
    if _basic(left) != _basic(right):
        raise TemplateError(f"incompatible types for comparison: {kind_of(left)} and {kind_of(right)}")
    if isinstance(left, bool):
        raise TemplateError("invalid type for comparison: bool")
    found: int = (left > right) - (left < right)  # type: ignore[operator]
    return found


def _equal(left: object, *others: object) -> bool:
    if not others:
        raise TemplateError("missing argument for comparison")
    for other in others:
        if left is None or other is None:
            if left is other:
                return True
            continue
        if _basic(left) != _basic(other):
            raise TemplateError(f"incompatible types for comparison: {kind_of(left)} and {kind_of(other)}")
        if left == other:
            return True
    return False


def _less(left: object, right: object) -> bool:
    return _compare(left, right) < 0


def _less_or_equal(left: object, right: object) -> bool:
    return _less(left, right) or _equal(left, right)


def _label(label: str, sample: Sample) -> str:
    return sample.labels.get(label, "")


def _value(sample: Sample) -> float:
    return sample.value


def _strvalue(sample: Sample) -> str:
    return sample.labels.get("__value__", "")


def _bounded(text: str) -> str:
    if len(text) > _TEXT_LIMIT:
        raise TemplateError(f"the text is over {_TEXT_LIMIT} characters")
    return text


FUNCTIONS: dict[str, Function] = {
    "args": lambda *values: {f"arg{number}": value for number, value in enumerate(values)},
    "eq": _equal,
    "first": _first,
    "ge": lambda left, right: not _less(left, right),
    "graphLink": lambda text: _link(text, "0"),
    "gt": lambda left, right: not _less_or_equal(left, right),
    "html": _html,
    "humanize": _humanize,
    "humanize1024": _humanize1024,
    "humanizeDuration": _humanize_duration,
    "humanizePercentage": lambda value: f"{general(_float(value) * 100, 4)}%",
    "humanizeTimestamp": _humanize_timestamp,
    "index": _index,
    "js": _js,
    "label": _label,
    "le": _less_or_equal,
    "len": _len,
    "lt": _less,
    "match": _match,
    "ne": lambda left, right: not _equal(left, right),
    "not": lambda value: not is_true(value),
    "parseDuration": _parse_duration,
    "print": lambda *values: _bounded(sprint(values)),
    "printf": lambda form, *values: _bounded(sprintf(form, values)),
    "println": lambda *values: " ".join(show(value) for value in values) + "\n",
    "reReplaceAll": _re_replace_all,
    "safeHtml": lambda text: text,
    "slice": _slice,
    "sortByLabel": _sort_by_label,
    "stripDomain": _strip_domain,
    "stripPort": _strip_port,
    "strvalue": _strvalue,
    "tableLink": lambda text: _link(text, "1"),
    "title": _title,
    "toDuration": lambda value: Duration(int(_float(value) * _NANOS)),
    "toLower": lambda text: text.lower(),
    "toTime": lambda value: _instant(_float(value)),
    "toUpper": lambda text: text.upper(),
    "urlQueryEscape": quote_plus,
    "urlquery": lambda *values: quote(sprint(values), safe="-_.~").replace("%20", "+"),
    "value": _value,
}  # fmt: skip
"""By name; those that need more than their arguments are in `execute`."""

SPECIAL = frozenset({"and", "externalURL", "now", "or", "pathPrefix", "query"})

_TEXT_ARGUMENTS: dict[str, tuple[int, ...]] = {
    "graphLink": (0,), "label": (0,), "match": (0, 1), "parseDuration": (0,), "printf": (0,),
    "reReplaceAll": (0, 1, 2), "safeHtml": (0,), "sortByLabel": (0,), "stripDomain": (0,), "stripPort": (0,),
    "tableLink": (0,), "title": (0,), "toLower": (0,), "toUpper": (0,), "urlQueryEscape": (0,),
}  # fmt: skip
_SAMPLE_ARGUMENT = {"label": 1, "value": 0, "strvalue": 0}
_VECTOR_ARGUMENT = {"first": 0, "sortByLabel": 1}


def check_arguments(name: str, arguments: Sequence[object]) -> None:
    """Types as Go's reflection would check them."""
    for place in _TEXT_ARGUMENTS.get(name, ()):
        if place < len(arguments) and not isinstance(arguments[place], str):
            raise TemplateError(f"wrong type for value; expected string; got {kind_of(arguments[place])}")
    place = _SAMPLE_ARGUMENT.get(name, -1)
    if 0 <= place < len(arguments) and not isinstance(arguments[place], Sample):
        raise TemplateError(f"wrong type for value; expected *template.sample; got {kind_of(arguments[place])}")
    place = _VECTOR_ARGUMENT.get(name, -1)
    if 0 <= place < len(arguments) and not isinstance(arguments[place], list):
        raise TemplateError(f"wrong type for value; expected template.queryResult; got {kind_of(arguments[place])}")


def path_of(url: str) -> str:
    return urlsplit(url).path
