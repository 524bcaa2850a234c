"""The part of Alertmanager's API v2 that reads alerts and keeps silences: for amtool, Grafana, Karma and their like."""

import re
from typing import Any
from uuid import UUID

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from modelmeter import __version__
from modelmeter.config import Config
from modelmeter.errors import CallerError, Malformed
from modelmeter.inhibition import Inhibitor
from modelmeter.matcher import Matcher, Operator, match_regex, parse_matchers
from modelmeter.notify.current import CurrentNotifications
from modelmeter.silence import Silence, State
from modelmeter.store.groups import read_firing
from modelmeter.store.silences import Silences
from modelmeter.web.silences import checked, clock, read_json
from modelmeter.window import MINUTE, parse_instant, to_rfc3339

_FLAGS = ("active", "silenced", "inhibited", "unprocessed")


def make_router(config: Config, current: CurrentNotifications) -> APIRouter:
    router = APIRouter(tags=["alertmanager"], prefix="/api/v2")
    store = Silences(config.database_url, config.silence_limit, config.notification_history_days)
    began_at = clock()

    @router.get("/status", summary="As Alertmanager's")
    async def status() -> Response:
        version = dict.fromkeys(("branch", "buildDate", "buildUser", "goVersion", "revision"), "")
        return _json(
            {
                "cluster": {"status": "disabled", "peers": []},
                "versionInfo": {**version, "version": f"modelmeter {__version__}"},
                "config": {"original": ""},  # it may be private
                "uptime": to_rfc3339(began_at),
            }
        )

    @router.get("/receivers", summary="The receivers of the notifications file")
    async def receivers() -> Response:
        await run_in_threadpool(current.refresh)
        return _json([{"name": name} for name in current.now.receivers])

    @router.get("/alerts", summary="The alerts that fire, as Alertmanager shows them")
    async def alerts(request: Request) -> Response:
        try:
            filters = _filters(request)
            flags = {name: _flag(request, name) for name in _FLAGS}
            receiver = request.query_params.get("receiver", "")
            match_regex(receiver, [""])
        except (Malformed, ValueError) as error:
            return _json(str(error), 400)
        return _json(await run_in_threadpool(read_alerts, filters, flags, receiver))

    def read_alerts(filters: tuple[Matcher, ...], flags: dict[str, bool], receiver: str) -> list[dict[str, Any]]:
        current.refresh()
        notifications = current.now
        now = clock()
        firing = read_firing(config.database_url)
        silences = store.active(now)
        inhibitor = Inhibitor(notifications.inhibit_rules, [alert.labels for alert, _ in firing])
        found = []
        for alert, evaluated_at in firing:
            if not all(matcher.suits(alert.labels) for matcher in filters):
                continue
            names = [route.receiver for route in notifications.route.match(alert.labels)]
            if receiver and not match_regex(receiver, names).any():
                continue
            silenced = [str(one.id) for one in silences if one.silences(alert.labels, now)]
            inhibited = inhibitor.inhibits(alert.labels)
            if (silenced and not flags["silenced"]) or (inhibited and not flags["inhibited"]):
                continue
            if not silenced and not inhibited and not flags["active"]:
                continue
            found.append(
                {
                    "labels": alert.labels,
                    "annotations": alert.annotations,
                    "startsAt": to_rfc3339(alert.starts_at),
                    "endsAt": to_rfc3339(max(evaluated_at, now) + 4 * MINUTE),
                    "updatedAt": to_rfc3339(evaluated_at),
                    "fingerprint": alert.fingerprint,
                    "generatorURL": config.external_url,
                    "receivers": [{"name": name} for name in dict.fromkeys(names)],
                    "status": {
                        "state": "suppressed" if silenced or inhibited else "active",
                        "silencedBy": silenced,
                        "inhibitedBy": [],
                    },
                }
            )
        return found

    @router.get("/silences", summary="Silences, as Alertmanager shows them")
    async def silences(request: Request) -> Response:
        try:
            filters = _filters(request)
        except Malformed as error:
            return _json(error.detail, 400)
        now = clock()
        found = await run_in_threadpool(store.newest, now)
        order = list(State)
        shown = [
            one
            for one in found
            if all(matcher.suits({own.name: own.value for own in one.matchers}) for matcher in filters)
        ]
        shown.sort(key=lambda one: (-order.index(one.state(now)) % 3, one.ends_at))
        return _json([_shown(one, now) for one in shown])

    @router.post("/silences", summary="Silence, as with Alertmanager")
    async def make(request: Request) -> Response:
        now = clock()
        try:
            wanted = _silence(await read_json(request), now)
        except CallerError as error:
            return _json(error.detail, 400)
        new = wanted.id == UUID(int=0)
        silence_id = await run_in_threadpool(store.put, wanted, now, new=new)
        return _json({"silenceID": str(silence_id)}) if silence_id else _json("silence not found", 404)

    @router.get("/silence/{silence_id}", summary="One silence, as with Alertmanager")
    async def one(silence_id: str) -> Response:
        found = await run_in_threadpool(store.one, UUID(silence_id)) if _is_id(silence_id) else None
        return _json(_shown(found, clock())) if found else _json("silence not found", 404)

    @router.delete("/silence/{silence_id}", summary="End a silence, as with Alertmanager")
    async def end(silence_id: str) -> Response:
        if not _is_id(silence_id) or not await run_in_threadpool(store.expire, UUID(silence_id), clock()):
            return _json("silence not found", 404)
        return Response(status_code=200)

    return router


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _is_id(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text))


def _filters(request: Request) -> tuple[Matcher, ...]:
    try:
        return tuple(one for text in request.query_params.getlist("filter") for one in parse_matchers(text))
    except ValueError as error:
        raise Malformed(f"filter: {error}", field="filter") from None


def _flag(request: Request, name: str) -> bool:
    text = request.query_params.get(name, "true").lower()
    if text not in {"true", "false", "1", "0"}:
        raise Malformed(f"{name}: {text!r} is no true or false", field=name)
    return text in {"true", "1"}


def _shown(silence: Silence, now: int) -> dict[str, object]:
    return {
        "id": str(silence.id),
        "status": {"state": silence.state(now)},
        "updatedAt": to_rfc3339(silence.updated_at),
        "createdBy": silence.author,
        "comment": silence.comment,
        "startsAt": to_rfc3339(silence.starts_at),
        "endsAt": to_rfc3339(silence.ends_at),
        "matchers": [
            {
                "name": one.name,
                "value": one.value,
                "isRegex": one.operator in ("=~", "!~"),
                "isEqual": one.operator in ("=", "=~"),
            }
            for one in silence.matchers
        ],
    }


class _PostedMatcher(msgspec.Struct):
    name: str
    value: str
    isRegex: bool = False  # noqa: N815  Alertmanager's name
    isEqual: bool = True  # noqa: N815


class _PostedSilence(msgspec.Struct):
    matchers: list[_PostedMatcher]
    startsAt: str  # noqa: N815
    endsAt: str  # noqa: N815
    createdBy: str  # noqa: N815
    comment: str
    id: str = ""


_OPERATORS: dict[tuple[bool, bool], Operator] = {
    (False, True): "=",
    (False, False): "!=",
    (True, True): "=~",
    (True, False): "!~",
}


def _silence(body: object, now: int) -> Silence:
    try:
        posted = msgspec.convert(body, _PostedSilence)
        matchers = tuple(Matcher(one.name, _OPERATORS[one.isRegex, one.isEqual], one.value) for one in posted.matchers)
        for matcher in matchers:
            matcher.matches_missing()
        starts_at, ends_at = (parse_instant(text, now) for text in (posted.startsAt, posted.endsAt))
    except (msgspec.ValidationError, ValueError) as error:
        raise Malformed(str(error)) from None
    if posted.id and not _is_id(posted.id):
        raise Malformed(f"id: {posted.id!r} is no id of a silence", field="id")
    if ends_at <= now:
        raise Malformed("endsAt: it is in the past", field="endsAt")
    silence_id = UUID(posted.id) if posted.id else UUID(int=0)
    author, comment = (text.replace("\0", "")[:1000] for text in (posted.createdBy, posted.comment))
    return checked(
        Silence(
            silence_id, matchers, author, comment, max(starts_at, now) if not posted.id else starts_at, ends_at, now
        )
    )
