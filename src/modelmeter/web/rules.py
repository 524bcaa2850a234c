"""Rules in: groups over HTTP, and a rule tried now without keeping it."""

import time

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from modelmeter.alert_reader import AlertReader, BadRules, LoadedGroup, StoredGroup
from modelmeter.errors import Malformed, NotFound
from modelmeter.rule.file import SIZE_LIMIT_BYTES
from modelmeter.rule_trial import Trial
from modelmeter.web.alerts import check_known, described, read_instant
from modelmeter.web.body import read_body
from modelmeter.window import DAY, SECOND, parse_duration, to_rfc3339

GROUP = "{group:segment}"
_BY = "X-Updated-By"
BACKTEST_QUERY = [
    ("start", "Begin: RFC 3339, Unix, or relative (`-7d`). Default: 7 days before `end`."),
    ("end", "End. Default: now."),
    ("step", "How often rules are evaluated. Default: the group's interval, `1m` at least."),
]


def make_router(alerts: AlertReader, trial: Trial) -> APIRouter:
    """The routes; the work is done in threads."""
    router = APIRouter(tags=["rules"])

    @router.get("/rules", summary="All groups of rules in use")
    async def groups() -> Response:
        began = time.perf_counter()
        found = await run_in_threadpool(alerts.groups)
        stored = {one.name: one for one in await run_in_threadpool(alerts.stored_groups)}
        shown = [_group(one, stored.pop(one.name, None)) for one in found]
        waiting = [_stored(one) for one in stored.values()]
        return _json({"groups": shown + waiting}, began)

    @router.get(f"/rules/{GROUP}", summary="A group of rules")
    async def group(group: str) -> Response:
        began = time.perf_counter()
        found = {one.name: one for one in await run_in_threadpool(alerts.groups)}
        stored = {one.name: one for one in await run_in_threadpool(alerts.stored_groups)}
        if group in found:
            return _json(_group(found[group], stored.get(group)), began)
        if group in stored:
            return _json(_stored(stored[group]), began)
        raise NotFound(f"there is no group {group!r}; GET /rules lists them", what="group")

    @router.put(f"/rules/{GROUP}", summary="Make or change a group of rules (YAML or JSON)")
    async def put(request: Request, group: str) -> Response:
        began = time.perf_counter()
        content = await _text(request)
        made = await run_in_threadpool(alerts.put_group, group, content, request.headers.get(_BY, "")[:200])
        return _json({"name": group, "created": made}, began, 201 if made else 200)

    @router.delete(f"/rules/{GROUP}", summary="Delete a group of rules that came over HTTP; its alerts end")
    async def delete(group: str) -> Response:
        began = time.perf_counter()
        await run_in_threadpool(alerts.drop_group, group)
        return _json({"name": group, "deleted": True}, began)

    @router.post("/rules/test", summary="Evaluate a rule, a group or a file of rules now, without keeping it")
    async def test(request: Request) -> Response:
        began = time.perf_counter()
        content = await _text(request)
        return _json(await run_in_threadpool(trial.now, content), began)

    @router.post("/rules/backtest", summary="What rules would have come to", openapi_extra=described(BACKTEST_QUERY))
    async def backtest(request: Request) -> Response:
        began = time.perf_counter()
        check_known(request, BACKTEST_QUERY)
        now = time.time_ns() // 1000
        end = read_instant(request, "end", now, now)
        start = read_instant(request, "start", now, end - 7 * DAY)
        if start >= end:
            raise Malformed("start: must be before end", field="start")
        text = request.query_params.get("step")
        try:
            width = None if text is None else parse_duration(text)
        except ValueError as error:
            raise Malformed(f"step: {error}", field="step") from None
        if width is not None and width < SECOND:
            raise Malformed("step: at least 1s", field="step")
        content = await _text(request)
        return _json(await run_in_threadpool(trial.past, content, start, end, width), began)

    return router


async def _text(request: Request) -> str:
    body = await read_body(request.receive, SIZE_LIMIT_BYTES, lambda _: None)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadRules(f"the body is not UTF-8: {error}") from None
    if not text.strip():
        raise Malformed("the body is empty; send rules in YAML or JSON")
    return text


def _json(value: object, began: float, status: int = 200) -> Response:
    response = Response(msgspec.json.encode(value), status, media_type="application/json")
    response.headers["Server-Timing"] = f"total;dur={(time.perf_counter() - began) * 1e3:.3f}"
    return response


def _group(one: LoadedGroup, stored: StoredGroup | None) -> dict[str, object]:
    rules = []
    for number, rule in enumerate(one.rules):
        error = one.rule_errors[number] if number < len(one.rule_errors) else ""
        rules.append({**rule, "error": error or None})
    return {
        "name": one.name,
        "file": one.origin or None,
        "interval_seconds": one.interval_seconds,
        "in_use": True,
        "evaluated_at": None if one.evaluated_at is None else to_rfc3339(one.evaluated_at),
        "evaluation_seconds": one.seconds,
        "rules": rules,
    } | ({} if stored is None else _content(stored))


def _stored(one: StoredGroup) -> dict[str, object]:
    """One that the keeper has not loaded yet."""
    return {"name": one.name, "file": None, "in_use": False} | _content(one)


def _content(one: StoredGroup) -> dict[str, object]:
    return {"content": one.content, "updated_at": to_rfc3339(one.updated_at), "updated_by": one.updated_by}
