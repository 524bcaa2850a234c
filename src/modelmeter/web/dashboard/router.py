"""The routes of the dashboard. None of them is part of the API that /docs describes."""

import time
from collections.abc import Callable

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from modelmeter.alert_reader import AlertReader
from modelmeter.config import Config, read_units
from modelmeter.direction import Directions, split_patterns
from modelmeter.errors import Malformed, ModelmeterError, NotFound
from modelmeter.matcher import Matcher
from modelmeter.promql.errors import QueryTimeout
from modelmeter.promql.reader import Limits
from modelmeter.reader import Reader
from modelmeter.series import Catalog, SeriesSource
from modelmeter.web.closing import Closing
from modelmeter.web.dashboard import alerts_page, compare_page, model_page, overview_page
from modelmeter.web.dashboard.chart_reader import ChartReader
from modelmeter.web.dashboard.live import Live
from modelmeter.web.dashboard.page import SECURITY, Pages, only, read_matchers, read_range
from modelmeter.web.dashboard.reader import OverviewReader
from modelmeter.web.dashboard.static import StaticFiles, packed
from modelmeter.web.dashboard.trial import read_wish, try_rule
from modelmeter.web.dashboard.wording import unit_of
from modelmeter.web.events import event_json
from modelmeter.web.parameters import read_limit
from modelmeter.web.path import NAME

_MARGIN = 0.5  # of the span, on both sides: what panning shows before it is fetched


def make_router(config: Config, reader: Reader, alerts: AlertReader, closing: Closing) -> APIRouter:
    router = APIRouter(include_in_schema=False)
    static = StaticFiles()
    units = read_units(config.units)
    charts = ChartReader(reader)
    catalog = Catalog()
    live = Live(reader, config.live_limit_listeners, closing)
    pages = Pages(static)

    directions = Directions(split_patterns(config.higher_is_better), split_patterns(config.lower_is_better))

    def direction(metric: str) -> int:
        return {"higher": 1, "lower": -1, None: 0}[directions.of(metric)]

    def unit(metric: str) -> str:
        return unit_of(metric, units)

    async def shown(request: Request, make: Callable[[], Response]) -> Response:
        """A page, made in a thread."""
        began = time.perf_counter()
        try:
            response = await run_in_threadpool(make)
        except ModelmeterError as error:
            response = pages.trouble(request, error)
        response.headers["server-timing"] = f"total;dur={(time.perf_counter() - began) * 1e3:.3f}"
        return response

    overviews = OverviewReader(reader, alerts, direction)

    @router.get("/")
    async def overview(request: Request) -> Response:
        chosen = read_range(request.query_params)
        matchers, trouble = read_matchers(request.query_params.get("match", ""))

        def make() -> Response:
            found = overviews.read(chosen.span, matchers)
            values = overview_page.values_of(request, found, chosen, trouble, unit, direction)
            return pages.render(request, "overview.html", values)

        return await shown(request, make)

    @router.get(f"/ui/models/{NAME}")
    async def model(request: Request, name: str) -> Response:
        chosen = read_range(request.query_params)
        matchers, trouble = read_matchers(request.query_params.get("match", ""))
        parameters = only(request.query_params, model_page.STATE)
        drawn = request.query_params.getlist("v")

        def make() -> Response:
            found = overviews.read(chosen.span, [Matcher("name", "=", name), *matchers])
            if not found.rows and not matchers:
                raise NotFound(f"there is no model {name!r}", what="model")
            values = model_page.values_of(name, found, parameters, drawn, chosen, trouble, unit, direction)
            return pages.render(request, "model.html", values)

        return await shown(request, make)

    @router.get(f"/ui/models/{NAME}/charts")
    async def charts_of(request: Request, name: str) -> Response:
        began = time.perf_counter()
        chosen = read_range(request.query_params)
        matchers, trouble = read_matchers(request.query_params.get("match", ""))
        if trouble:
            raise Malformed(f"match: {trouble}", field="match")
        versions = request.query_params.getlist("v")
        focus = request.query_params.get("focus", "")

        def make() -> Response:
            found = charts.read(name, versions, focus, chosen.span, _MARGIN, matchers)
            body = msgspec.json.encode(model_page.charts_json(found, chosen.span, unit, direction))
            return packed(request, Response(body, media_type="application/json", headers=SECURITY))

        response = await run_in_threadpool(make)
        response.headers["server-timing"] = f"total;dur={(time.perf_counter() - began) * 1e3:.3f}"
        return response

    @router.get(f"/ui/models/{NAME}/events")
    async def events_of(request: Request, name: str) -> Response:
        chosen = read_range(request.query_params)
        version = request.query_params.get("version", "")
        matchers, trouble = read_matchers(request.query_params.get("match", ""))
        if trouble or any(matcher.operator != "=" for matcher in matchers):
            raise Malformed("match: raw events are filtered by labels with = only", field="match")
        labels = {matcher.name: matcher.value for matcher in matchers}
        limit = read_limit(request, 50, 1000)
        found = await run_in_threadpool(reader.events, name, version, chosen.span, labels, limit)
        body = msgspec.json.encode({"events": [event_json(one) for one in found]})
        return packed(request, Response(body, media_type="application/json", headers=SECURITY))

    @router.get("/ui/compare")
    async def comparison(request: Request) -> Response:
        chosen = read_range(request.query_params)
        _, trouble = read_matchers(request.query_params.get("match", ""))
        parameters = only(request.query_params, compare_page.STATE)

        def make() -> Response:
            values = compare_page.values_of(reader.models(), parameters, chosen, trouble)
            return pages.render(request, "compare.html", values)

        return await shown(request, make)

    @router.get("/ui/alerts")
    async def alerting(request: Request) -> Response:
        chosen = read_range(request.query_params, alerts_page.DEFAULT_START)
        parameters = only(request.query_params, alerts_page.STATE)

        def make() -> Response:
            periods = charts.periods(chosen.span)
            values = alerts_page.values_of(alerts.alerts(), periods, alerts.groups(), parameters, chosen)
            return pages.render(request, "alerts.html", values)

        return await shown(request, make)

    @router.get("/ui/trial")
    async def trial(request: Request) -> Response:
        wish = read_wish(request.query_params)
        deadline = time.monotonic() + config.query_timeout_seconds

        def check_time() -> None:
            if time.monotonic() > deadline:
                raise QueryTimeout("query timed out in expression evaluation")

        def make() -> Response:
            limits = Limits(samples=config.query_limit_samples, series=config.query_limit_series, check_time=check_time)
            with reader.snapshot() as connection:
                source = SeriesSource(connection, catalog, config.query_exact_limit_samples, config.query_limit_samples)
                found = try_rule(wish, time.time_ns() // 1000, source, limits)
            body = msgspec.json.encode(alerts_page.trial_json(found))
            return packed(request, Response(body, media_type="application/json", headers=SECURITY))

        return await run_in_threadpool(make)

    @router.get("/ui/live")
    async def listen() -> Response:
        return live.respond()

    @router.get("/ui/static/{digest}/{name}")
    async def file(request: Request, digest: str, name: str) -> Response:
        del digest  # it is there so that a browser may keep the file forever
        response = static.respond(request, name)
        if response is None:
            raise NotFound(f"there is no file {name!r} in the dashboard")
        return response

    return router
