"""Prometheus' HTTP API, to the letter: /api/v1/query and its kin, for Grafana, promtool and whatever else speaks it."""

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import parse_qsl

import msgspec
import psycopg
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from modelmeter import __version__
from modelmeter.config import Config
from modelmeter.errors import Busy, ModelmeterError
from modelmeter.promql import (
    BadQuery,
    Limits,
    QueryError,
    QueryTimeout,
    Result,
    evaluate_instant,
    evaluate_range,
    format_query,
    parse_selector,
    parse_tree,
)
from modelmeter.promql.labels import METRIC_NAME, Labels
from modelmeter.reader import Connection, Reader
from modelmeter.series import Catalog, SeriesSource
from modelmeter.window import DAY, EARLIEST, LATEST, SECOND, Span, floor, parse_duration, rfc3339_to_micros

_MATCH = "match[]"
_LOOK_SECONDS = 0.5  # between two looks whether the client is still there

Parameters = dict[str, list[str]]
Endpoint = Callable[[Request], Awaitable[Response]]


async def _parameters(request: Request) -> Parameters:
    """Query string and form together; a parameter may stand many times."""
    pairs = list(request.query_params.multi_items())
    if request.method == "POST":
        pairs += parse_qsl((await request.body()).decode(errors="replace"), keep_blank_values=True)
    found: Parameters = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


def _one(parameters: Parameters, name: str) -> str:
    return parameters.get(name, [""])[0]


def _number(text: str) -> float:
    """As Go reads it: no blanks, no underscores, no digits of other scripts."""
    if not text.isascii() or "_" in text or text != text.strip():
        raise ValueError(text)
    return float(text)


def _instant(parameters: Parameters, name: str, default: int | None = None) -> int:
    text = _one(parameters, name)
    if not text and default is not None:
        return default
    try:
        seconds = _number(text)
        if not math.isfinite(seconds):
            raise ValueError
        micros = round(seconds * 1000) * 1000  # Prometheus' clock has milliseconds
    except ValueError:
        try:
            micros = rfc3339_to_micros(text)
        except ValueError:
            # Prometheus says more where the parameter may be left out.
            which = "" if default is None else f"Invalid time value for '{name}': "
            raise BadQuery(f'invalid parameter "{name}": {which}cannot parse "{text}" to a valid timestamp') from None
    return min(max(micros, EARLIEST), LATEST)


def _duration(parameters: Parameters, name: str) -> int:
    text = _one(parameters, name)
    try:
        seconds = _number(text)
        if math.isnan(seconds):
            return -1  # as Go does
        if abs(seconds) > LATEST / SECOND:
            raise BadQuery(f'invalid parameter "{name}": cannot parse "{text}" to a valid duration. It overflows int64')
        return round(seconds * 1000) * 1000
    except ValueError:
        try:
            return parse_duration(text)
        except ValueError:
            raise BadQuery(f'invalid parameter "{name}": cannot parse "{text}" to a valid duration') from None


def answer(data: bytes, warnings: Sequence[str] = (), infos: Sequence[str] = ()) -> Response:
    notes = b""
    if warnings:
        notes += b',"warnings":' + msgspec.json.encode(warnings)
    if infos:
        notes += b',"infos":' + msgspec.json.encode(infos)
    return Response(b'{"status":"success","data":' + data + notes + b"}", media_type="application/json")


def refuse(error: ModelmeterError) -> Response:
    kind = error.kind if isinstance(error, QueryError) else ("unavailable" if error.status == 503 else "bad_data")
    body = {"status": "error", "errorType": kind, "error": error.detail}
    response = Response(msgspec.json.encode(body), error.status, media_type="application/json")
    if isinstance(error, Busy):
        response.headers["Retry-After"] = str(error.retry_after_seconds)
    return response


@contextmanager
def _blaming(name: str) -> Iterator[None]:
    """A text that does not parse is the fault of the parameter that it came in."""
    try:
        yield
    except BadQuery as error:
        if not error.detail.startswith("parse error: "):
            raise
        raise BadQuery(f'invalid parameter "{name}": {error.detail}') from None


class _Watch:
    """The time that a query may take, and the end of it when its client has gone: here and in Postgres."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._gone = False
        self._cancel: Callable[[], None] | None = None

    def check(self) -> None:
        if self._gone:
            raise QueryTimeout("query was canceled in expression evaluation")
        if time.monotonic() > self._deadline:
            raise QueryTimeout("query timed out in expression evaluation")

    @contextmanager
    def over(self, connection: Connection) -> Iterator[None]:
        """While the connection is the query's own. Nothing is cancelled afterwards, when others have it."""
        with self._lock:
            self._cancel = connection.cancel_safe
        try:
            left = max(int((self._deadline - time.monotonic()) * 1000), 1)
            connection.execute(f"SET LOCAL statement_timeout = {left}".encode())
            self.check()
            yield
        except psycopg.errors.QueryCanceled:
            self.check()
            raise QueryTimeout("query timed out in expression evaluation") from None
        finally:
            with self._lock:
                self._cancel = None

    def end(self) -> None:
        with self._lock:
            self._gone = True
            if self._cancel is not None:
                self._cancel()


def make_router(config: Config, reader: Reader) -> APIRouter:
    """The routes under /api/v1; the work is done in threads."""
    router = APIRouter(prefix="/api/v1", tags=["prometheus"])
    catalog = Catalog()

    def both(path: str, summary: str) -> Callable[[Endpoint], Endpoint]:
        """By GET and by POST of a form; two routes, so that each has an operation id of its own."""
        return lambda endpoint: router.get(path, summary=summary)(router.post(path, summary=summary)(endpoint))

    async def evaluate(
        request: Request, parameters: Parameters, work: Callable[[SeriesSource, Limits], Result]
    ) -> Response:
        seconds = config.query_timeout_seconds
        if _one(parameters, "timeout"):
            seconds = min(seconds, _duration(parameters, "timeout") / SECOND)
        watch = _Watch(seconds)
        limits = Limits(samples=config.query_limit_samples, series=config.query_limit_series, check_time=watch.check)

        def run() -> Result:
            with reader.snapshot() as connection, watch.over(connection), _blaming("query"):
                source = SeriesSource(connection, catalog, config.query_exact_limit_samples, config.query_limit_samples)
                return work(source, limits)

        running = asyncio.ensure_future(run_in_threadpool(run))
        while not running.done():
            await asyncio.wait([running], timeout=_LOOK_SECONDS)
            if not running.done() and await request.is_disconnected():
                await run_in_threadpool(watch.end)
        result = running.result()
        return answer(result.data_json(), result.warnings, result.infos)

    async def guarded(request: Request, respond: Callable[[Parameters], object]) -> Response:
        began = time.perf_counter()
        try:
            response = respond(await _parameters(request))
            if asyncio.iscoroutine(response):
                response = await response
        except ModelmeterError as error:
            response = refuse(error)
        assert isinstance(response, Response)
        response.headers["Server-Timing"] = f"total;dur={(time.perf_counter() - began) * 1e3:.3f}"
        return response

    @both("/query", "A PromQL query at one instant")
    async def query(request: Request) -> Response:
        def respond(parameters: Parameters) -> object:
            now = time.time_ns() // 1_000_000 * 1000
            instant = _instant(parameters, "time", now)
            text = _one(parameters, "query")
            return evaluate(request, parameters, lambda source, limits: evaluate_instant(text, instant, source, limits))

        return await guarded(request, respond)

    @both("/query_range", "A PromQL query over a range of steps")
    async def query_range(request: Request) -> Response:
        def respond(parameters: Parameters) -> object:
            start, end = _instant(parameters, "start"), _instant(parameters, "end")
            step = _duration(parameters, "step")
            text = _one(parameters, "query")
            return evaluate(
                request,
                parameters,
                lambda source, limits: evaluate_range(text, start, end, step, source, limits),
            )

        return await guarded(request, respond)

    def known_series(parameters: Parameters) -> list[Labels]:
        """All series, or those that match one of match[], that have events in [start, end] (whole days)."""
        selectors = [parse_selector(text) for text in parameters.get(_MATCH, [])]
        now = time.time_ns() // 1000
        span = Span(
            floor(_instant(parameters, "start", max(now - 30 * DAY, 0)), DAY),
            _instant(parameters, "end", now + DAY) + 1,
        )
        with reader.snapshot() as connection:
            source = SeriesSource(connection, catalog, 0)
            return source.series(selectors or [()], span)

    @both("/series", "The series that match")
    async def series(request: Request) -> Response:
        async def respond(parameters: Parameters) -> Response:
            if not parameters.get(_MATCH):
                raise BadQuery("no match[] parameter provided")
            with _blaming(_MATCH):
                found = await run_in_threadpool(known_series, parameters)
            return _listed(parameters, [dict(labels) for labels in found])

        return await guarded(request, respond)

    @both("/labels", "The label names")
    async def labels(request: Request) -> Response:
        async def respond(parameters: Parameters) -> Response:
            found = await run_in_threadpool(known_series, parameters)
            names = sorted({name for one in found for name, _ in one})
            return _listed(parameters, names)

        return await guarded(request, respond)

    @router.get("/label/{name}/values", summary="The values of a label")
    async def label_values(request: Request, name: str) -> Response:
        async def respond(parameters: Parameters) -> Response:
            found = await run_in_threadpool(known_series, parameters)
            values = sorted({value for one in found for label, value in one if label == name})
            return _listed(parameters, values)

        return await guarded(request, respond)

    @router.get("/metadata", summary="What is known of the metrics: that they are gauges")
    async def metadata(request: Request) -> Response:
        async def respond(parameters: Parameters) -> Response:
            wanted = _one(parameters, "metric")
            found = await run_in_threadpool(known_series, {})
            names = sorted({value for one in found for label, value in one if label == METRIC_NAME})
            known = {
                name: [{"type": "gauge", "help": "", "unit": ""}] for name in names if not wanted or name == wanted
            }
            return answer(msgspec.json.encode(known))

        return await guarded(request, respond)

    @router.get("/status/buildinfo", summary="The version; Grafana asks for it")
    async def buildinfo() -> Response:
        known = {
            "version": "3.0.0",
            "revision": f"modelmeter-{__version__}",
            "branch": "",
            "buildUser": "",
            "buildDate": "",
            "goVersion": "",
        }
        return answer(msgspec.json.encode(known))

    @both("/format_query", "A query, prettily")
    async def formatted(request: Request) -> Response:
        def respond(parameters: Parameters) -> Response:
            with _blaming("query"):
                return answer(msgspec.json.encode(format_query(_one(parameters, "query"))))

        return await guarded(request, respond)

    @both("/parse_query", "A query as a tree")
    async def parsed(request: Request) -> Response:
        def respond(parameters: Parameters) -> Response:
            with _blaming("query"):
                return answer(msgspec.json.encode(parse_tree(_one(parameters, "query"))))

        return await guarded(request, respond)

    return router


def _listed(parameters: Parameters, found: Sequence[object]) -> Response:
    """At most `limit` of them; 0 is no limit."""
    text = _one(parameters, "limit")
    if text and not (text.isascii() and text.isdigit()):
        raise BadQuery(f'invalid parameter "limit": cannot parse "{text}" to a valid limit')
    limit = int(text or 0)
    if not limit or limit >= len(found):
        return answer(msgspec.json.encode(found))
    return answer(msgspec.json.encode(found[:limit]), ["results truncated due to limit"])
