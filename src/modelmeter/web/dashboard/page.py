"""What all pages share: templates that escape, the headers that let nothing foreign run, and the state in the URL."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from modelmeter import __version__
from modelmeter.errors import Busy, CallerError, ModelmeterError, NotFound
from modelmeter.matcher import Matcher
from modelmeter.promql.errors import BadQuery
from modelmeter.promql.parse import parse_selector
from modelmeter.web.dashboard.static import StaticFiles, packed
from modelmeter.web.dashboard.wording import duration
from modelmeter.window import DAY, EARLIEST, SECOND, Span, parse_instant

SECURITY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
RANGES = ("-1h", "-6h", "-24h", "-7d", "-30d")
DEFAULT_START = "-24h"
_LEAST_SPAN = SECOND
_LONGEST_SPAN = 20 * 365 * DAY


@dataclass(frozen=True, slots=True)
class Range:
    """The span that a URL names, and how it names it; `end_text` is empty while the end is now."""

    span: Span
    now: int
    start_text: str
    end_text: str

    @property
    def words(self) -> str:
        if self.end_text:
            return duration(self.span.end - self.span.start)
        return f"the last {duration(self.span.end - self.span.start)}"


def read_range(parameters: Mapping[str, str], default_start: str = DEFAULT_START) -> Range:
    """start= and end= of a page. What cannot be read falls back to the default: a page is no place for a 400."""
    now = time.time_ns() // 1000
    start_text, end_text = parameters.get("start", ""), parameters.get("end", "")
    try:
        end = parse_instant(end_text, now) if end_text and end_text != "now" else now
        start = parse_instant(start_text or default_start, now)
    except ValueError:
        start_text = end_text = ""
        start, end = parse_instant(default_start, now), now
    end = max(min(end, now + DAY), EARLIEST + _LEAST_SPAN)
    start = min(max(start, end - _LONGEST_SPAN, EARLIEST), end - _LEAST_SPAN)
    return Range(Span(start, end), now, start_text, "" if end_text == "now" else end_text)


def read_matchers(text: str) -> tuple[tuple[Matcher, ...], str]:
    """The matchers of a label filter, and what is wrong with it, if anything is."""
    if not text.strip():
        return (), ""
    shown = text if "{" in text else "{" + text + "}"
    try:
        matchers = parse_selector(shown)
        for matcher in matchers:
            matcher.matches_missing()
    except (BadQuery, ValueError, CallerError) as error:
        return (), f'this filter cannot be read: {getattr(error, "detail", error)}; write {{env="prod"}}'
    return matchers, ""


def link(path: str, parameters: Mapping[str, str | None]) -> str:
    """A URL with those parameters that say something."""
    query = urlencode({key: value for key, value in parameters.items() if value})
    return f"{path}?{query}" if query else path


def matcher_text(name: str, value: str) -> str:
    """`name="value"`, for a label filter."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{name}="{escaped}"'


def range_choices(
    path: str, parameters: Mapping[str, str], chosen: Range, default_start: str = DEFAULT_START
) -> list[dict[str, object]]:
    current = "" if chosen.end_text else chosen.start_text or default_start
    return [
        {
            "start": start,
            "words": start[1:],
            "chosen": start == current,
            "url": link(path, {**parameters, "start": None if start == default_start else start, "end": None}),
        }
        for start in RANGES
    ]


class Pages:
    """Renders. Text is escaped wherever it stands; there is no way around it in a template."""

    def __init__(self, static: StaticFiles) -> None:
        self._static = static
        self._templates = Environment(
            loader=PackageLoader(__package__ or "", "templates"),
            autoescape=select_autoescape(default=True, default_for_string=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def render(self, request: Request, template: str, values: Mapping[str, object], status: int = 200) -> Response:
        shared = {
            "static": self._static.root,
            "release": __version__,
            "now_seconds": time.time_ns() // 1_000_000_000,
            "origin": f"{request.url.scheme}://{request.headers.get('host') or request.url.netloc}",
            "carried": "",
            "firing": 0,
        }
        text = self._templates.get_template(template).render({**shared, **values})
        response = HTMLResponse(text, status, headers=SECURITY | {"cache-control": "no-store"})
        return packed(request, response)

    def trouble(self, request: Request, error: ModelmeterError) -> Response:
        """What a person sees of an error: what is wrong, and where to go on."""
        again = str(request.url.path) + (f"?{request.url.query}" if request.url.query else "")
        values = {
            "page": "",
            "heading": "Not found" if isinstance(error, NotFound) else "Not now",
            "detail": error.detail,
            "again": again if isinstance(error, Busy) else "",
        }
        response = self.render(request, "trouble.html", values, error.status)
        if isinstance(error, Busy):
            response.headers["Retry-After"] = str(error.retry_after_seconds)
        return response


def only(parameters: Mapping[str, str], keys: Sequence[str]) -> dict[str, str]:
    return {key: parameters[key] for key in keys if parameters.get(key)}
