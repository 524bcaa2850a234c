"""Alerts out: /api/v1/rules and /api/v1/alerts as Prometheus answers them, /alerts and its history for people."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from modelmeter.alert_reader import ActiveAlert, AlertReader, LoadedGroup, PastTransition, finite, matches
from modelmeter.errors import Malformed, ModelmeterError
from modelmeter.matcher import Matcher
from modelmeter.promql import BadQuery, parse_selector
from modelmeter.web.parameters import read_limit
from modelmeter.web.prometheus import answer, refuse
from modelmeter.window import DAY, Span, parse_instant, to_rfc3339

STATES = ("inactive", "pending", "firing")
_LIMIT, _MOST = 100, 10_000
_HISTORY_DAYS = 7
_NEVER = "0001-01-01T00:00:00Z"

ALERTS_QUERY = [
    ("match", 'Only alerts with such labels: `{severity="critical"}`; may be given many times.'),
    ("state", "Only `pending` or `firing`."),
]
HISTORY_QUERY = [
    ("match", "Only transitions of alerts with such labels; may be given many times."),
    ("rule", "Only of this rule."),
    ("group", "Only of this group."),
    ("state", "Only those to `inactive`, `pending` or `firing`."),
    ("start", "Begin: RFC 3339, Unix, or relative (`-6h`). Default: 7 days before `end`."),
    ("end", "End, not included. Default: now."),
    ("limit", f"At most so many; from 1 to {_MOST:,}. Default: {_LIMIT}."),
    ("cursor", "`next` of the answer before: go on from there."),
]


def make_router(alerts: AlertReader) -> APIRouter:
    """The routes; the work is done in threads."""
    router = APIRouter(tags=["alerts"])

    @router.get("/api/v1/alerts", summary="Alerts, as Prometheus answers them")
    async def prometheus_alerts() -> Response:
        try:
            found = await run_in_threadpool(alerts.alerts)
        except ModelmeterError as error:
            return refuse(error)
        return answer(msgspec.json.encode({"alerts": [_prometheus_alert(one) for one in found]}))

    @router.get("/api/v1/rules", summary="Rules and their alerts, as Prometheus answers them")
    async def prometheus_rules(request: Request) -> Response:
        try:
            wanted = _Wanted.of(request)
            groups = await run_in_threadpool(alerts.groups)
            active = [] if wanted.exclude_alerts else await run_in_threadpool(alerts.alerts)
            return answer(msgspec.json.encode(_rules(groups, active, wanted)))
        except ModelmeterError as error:
            return refuse(error)

    @router.get("/alerts", summary="Alerts that are pending or firing now", openapi_extra=described(ALERTS_QUERY))
    async def now(request: Request) -> Response:
        began = time.perf_counter()
        check_known(request, ALERTS_QUERY)
        selectors = _selectors(request)
        state = _state(request, ("pending", "firing"))
        found = await run_in_threadpool(alerts.alerts, selectors)
        return _json({"alerts": [_alert(one) for one in found if state in (None, one.state)]}, began)

    @router.get("/alerts/history", summary="What alerts have been", openapi_extra=described(HISTORY_QUERY))
    async def history(request: Request) -> Response:
        began = time.perf_counter()
        check_known(request, HISTORY_QUERY)
        query = request.query_params
        now = time.time_ns() // 1000
        end = read_instant(request, "end", now, now + 1)
        start = read_instant(request, "start", now, end - _HISTORY_DAYS * DAY)
        if start >= end:
            raise Malformed("start: must be before end", field="start")

        def read() -> tuple[list[PastTransition], tuple[int, int] | None]:
            return alerts.history(
                Span(start, end),
                read_limit(request, _LIMIT, _MOST),
                selectors=_selectors(request),
                group=query.get("group"),
                rule=query.get("rule"),
                state=_state(request, STATES),
                before=_cursor(query.get("cursor")),
            )

        found, rest = await run_in_threadpool(read)
        following = None if rest is None else f"{rest[0]}.{rest[1]}"
        return _json({"transitions": [_transition(one) for one in found], "next": following}, began)

    @router.delete("/alerts/{fingerprint}", summary="Dismiss an alert, as that of a model that is retired")
    async def dismiss(fingerprint: str) -> Response:
        ended = await run_in_threadpool(alerts.dismiss, fingerprint)
        return _json({"dismissed": ended}, time.perf_counter())

    return router


def _json(value: object, began: float) -> Response:
    response = Response(msgspec.json.encode(value), media_type="application/json")
    response.headers["Server-Timing"] = f"total;dur={(time.perf_counter() - began) * 1e3:.3f}"
    return response


def described(parameters: Sequence[tuple[str, str]]) -> dict[str, object]:
    return {
        "parameters": [
            {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
            for name, text in parameters
        ]
    }


def check_known(request: Request, known: Sequence[tuple[str, str]]) -> None:
    names = {name for name, _ in known}
    for key in request.query_params:
        if key not in names:
            raise Malformed(f"{key}: no such parameter; there are {', '.join(sorted(names))}", field=key)
        if key != "match" and len(request.query_params.getlist(key)) > 1:
            raise Malformed(f"{key}: stands twice; send it once", field=key)


def _selectors(request: Request, name: str = "match") -> list[tuple[Matcher, ...]]:
    found = []
    for text in request.query_params.getlist(name):
        try:
            found.append(parse_selector(text))
        except BadQuery as error:
            raise Malformed(f'{name}: {error.detail}; write it like {{severity="critical"}}', field=name) from None
    return found


def _state(request: Request, known: Sequence[str]) -> str | None:
    text = request.query_params.get("state")
    if text is not None and text not in known:
        raise Malformed(f"state: {text!r} is none of {', '.join(known)}", field="state")
    return text


def read_instant(request: Request, key: str, now: int, default: int) -> int:
    text = request.query_params.get(key)
    if text is None:
        return max(default, 0)
    try:
        return parse_instant(text, now)
    except ValueError as error:
        raise Malformed(f"{key}: {error}", field=key) from None


def _cursor(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    at, _, number = text.partition(".")
    if not (at.isascii() and at.isdigit() and number.isascii() and number.isdigit() and len(text) < 40):
        raise Malformed("cursor: give `next` of the answer before", field="cursor")
    return int(at), int(number)


def _time(micros: int | None) -> str | None:
    return None if micros is None else to_rfc3339(micros)


def _alert(one: ActiveAlert) -> dict[str, object]:
    return {
        "fingerprint": one.fingerprint,
        "group": one.group,
        "rule": one.rule,
        "state": one.state,
        "labels": one.labels,
        "annotations": one.annotations,
        "value": finite(one.value),
        "reason": one.reason,
        "active_at": _time(one.active_at),
        "fired_at": _time(one.fired_at),
        "kept_since": _time(one.kept_since_at),
        "evaluated_at": _time(one.evaluated_at),
    }


def _transition(one: PastTransition) -> dict[str, object]:
    return {
        "id": one.transition_id,
        "at": _time(one.at),
        "fingerprint": one.fingerprint,
        "group": one.group,
        "rule": one.rule,
        "labels": one.labels,
        "from": one.before,
        "to": one.after,
        "reason": one.reason,
        "value": finite(one.value),
    }


def exponent_form(value: float | None) -> str:
    """Go's FormatFloat(value, 'e', -1, 64), as Prometheus writes the value of an alert."""
    if value is None or value != value:  # noqa: PLR0124  NaN
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    digits = len(repr(abs(value)).partition("e")[0].replace(".", "").strip("0")) or 1
    return f"{value:.{digits - 1}e}"


def _prometheus_alert(one: ActiveAlert) -> dict[str, object]:
    found: dict[str, object] = {
        "labels": one.labels,
        "annotations": one.annotations,
        "state": one.state,
        "activeAt": _time(one.active_at),
    }
    if one.kept_since_at is not None:
        found["keepFiringSince"] = _time(one.kept_since_at)
    return found | {"value": exponent_form(one.value)}


class _Wanted(msgspec.Struct):
    """What of /api/v1/rules is asked for."""

    kind: str
    rules: list[str]
    groups: list[str]
    files: list[str]
    exclude_alerts: bool
    selectors: list[tuple[Matcher, ...]]
    group_limit: int
    after: str

    @staticmethod
    def of(request: Request) -> "_Wanted":
        query = request.query_params
        kind = query.get("type", "").lower()
        if kind not in ("", "alert", "record"):
            raise BadQuery(f'invalid parameter "type": not supported value "{kind}"')
        exclude = query.get("exclude_alerts", "").lower()
        if exclude not in ("", "1", "t", "true", "0", "f", "false"):
            raise BadQuery(f'invalid parameter "exclude_alerts": error converting exclude_alerts: "{exclude}"')
        limit = query.get("group_limit", "")
        after = query.get("group_next_token", "")
        if limit and not (limit.isascii() and limit.isdigit() and 0 < int(limit) < 10**9):
            raise BadQuery('invalid parameter "group_limit": group_limit needs to be a number greater than 0')
        if after and not limit:
            raise BadQuery(
                'invalid parameter "group_limit": group_limit needs to be present in order to paginate over the groups'
            )
        selectors = []
        for text in query.getlist("match[]"):
            try:
                selectors.append(parse_selector(text))
            except BadQuery as error:
                raise BadQuery(f'invalid parameter "match[]": {error.detail}') from None
        return _Wanted(
            kind,
            query.getlist("rule_name[]"),
            query.getlist("rule_group[]"),
            query.getlist("file[]"),
            exclude in ("1", "t", "true"),
            selectors,
            int(limit or 0),
            after,
        )


def _rules(groups: Sequence[LoadedGroup], active: Sequence[ActiveAlert], wanted: _Wanted) -> dict[str, object]:
    by_rule: dict[tuple[str, str], list[ActiveAlert]] = {}
    for one in active:
        by_rule.setdefault((one.group, one.rule), []).append(one)
    found: list[dict[str, object]] = []
    for group in groups:
        if (wanted.groups and group.name not in wanted.groups) or (wanted.files and group.origin not in wanted.files):
            continue
        if wanted.after and group.name <= wanted.after:
            continue
        rules = [
            shown for number, rule in enumerate(group.rules) if (shown := _rule(group, number, rule, by_rule, wanted))
        ]
        if rules or not (wanted.rules or wanted.kind or wanted.selectors):
            found.append(
                {
                    "name": group.name,
                    "file": group.origin,
                    "rules": rules,
                    "interval": group.interval_seconds,
                    "limit": group.limit,
                    "evaluationTime": group.seconds,
                    "lastEvaluation": _time(group.evaluated_at) or _NEVER,
                }
            )
    if not wanted.group_limit:
        return {"groups": found}
    found.sort(key=lambda one: str(one["name"]))
    page = found[: wanted.group_limit]
    rest = {"groupNextToken": page[-1]["name"]} if len(found) > wanted.group_limit else {}
    return {"groups": page, **rest}


def _rule(
    group: LoadedGroup,
    number: int,
    rule: Mapping[str, Any],
    by_rule: Mapping[tuple[str, str], Sequence[ActiveAlert]],
    wanted: _Wanted,
) -> dict[str, object] | None:
    """None when it is not asked for. Event rules are not Prometheus', whose clients would choke on them."""
    kind = {"alert": "alerting", "record": "recording"}.get(wanted.kind)
    if (
        rule["type"] == "event"
        or kind not in (None, rule["type"])
        or (wanted.rules and rule["name"] not in wanted.rules)
    ):
        return None
    if not matches(wanted.selectors, rule["labels"]):
        return None
    error = group.rule_errors[number] if number < len(group.rule_errors) else ""
    known = number < len(group.rule_errors)
    state: dict[str, object] = {
        "health": "err" if error else "ok" if known else "unknown",
        "evaluationTime": group.rule_seconds[number] if number < len(group.rule_seconds) else 0.0,
        "lastEvaluation": (_time(group.evaluated_at) if known else None) or _NEVER,
        "type": rule["type"],
    }
    if error:
        state["lastError"] = error
    shown = {name: value for name, value in rule.items() if name not in ("key", "type")}
    if rule["type"] == "recording":
        return shown | state
    alerts = by_rule.get((group.name, rule["key"]), [])
    worst = "firing" if any(one.state == "firing" for one in alerts) else "pending" if alerts else "inactive"
    listed = {} if wanted.exclude_alerts else {"alerts": [_prometheus_alert(one) for one in alerts]}
    return {"state": worst, **shown, **listed, **state}
