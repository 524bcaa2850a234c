"""Silences over HTTP: make, look at, change and end them."""

import difflib
import time
from uuid import UUID

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from modelmeter import silence as rules
from modelmeter.config import Config
from modelmeter.errors import Malformed, NotFound
from modelmeter.matcher import format_matcher, parse_matchers
from modelmeter.silence import Silence, State
from modelmeter.store.silences import Silences
from modelmeter.web.body import read_body
from modelmeter.window import parse_duration, parse_instant, to_rfc3339

BODY_LIMIT_BYTES = 65_536
_FIELDS = ("matchers", "author", "comment", "starts_at", "ends_at", "duration")
_EXAMPLE = {
    "matchers": ['name="Mistral"', 'env=~"prod|staging"'],
    "author": "ana",
    "comment": "retraining tonight",
    "duration": "2h",
}
_BODY = {"requestBody": {"required": True, "content": {"application/json": {"example": _EXAMPLE}}}}


def make_router(config: Config) -> APIRouter:
    router = APIRouter(tags=["silences"])
    store = Silences(config.database_url, config.silence_limit, config.notification_history_days)

    @router.get("/silences", summary="All silences that are not long over")
    async def every(request: Request) -> Response:
        wanted = request.query_params.get("state")
        if wanted is not None and wanted not in {*State}:
            raise Malformed(f"state: {wanted!r} is none of {', '.join(State)}", field="state")
        now = clock()
        found = await run_in_threadpool(store.newest, now)
        return _json({"silences": [_shown(one, now) for one in found if wanted in (None, one.state(now))]})

    @router.post("/silences", summary="Silence alerts", status_code=201, openapi_extra=_BODY)
    async def make(request: Request) -> Response:
        now = clock()
        wanted = _silence(await read_json(request), UUID(int=0), now)
        found = await run_in_threadpool(store.put, wanted, now, new=True)
        return await _one(found, 201)

    @router.get("/silences/{silence_id}", summary="One silence")
    async def one(silence_id: str) -> Response:
        return await _one(_id(silence_id))

    @router.put("/silences/{silence_id}", summary="Change a silence", openapi_extra=_BODY)
    async def change(request: Request, silence_id: str) -> Response:
        now = clock()
        wanted = _silence(await read_json(request), _id(silence_id), now)
        if await run_in_threadpool(store.put, wanted, now, new=False) is None:
            raise _nothing(silence_id)
        return await _one(wanted.id)

    @router.delete("/silences/{silence_id}", summary="End a silence now")
    async def end(silence_id: str) -> Response:
        if not await run_in_threadpool(store.expire, _id(silence_id), clock()):
            raise _nothing(silence_id)
        return await _one(_id(silence_id))

    async def _one(silence_id: UUID | None, status: int = 200) -> Response:
        found = await run_in_threadpool(store.one, silence_id) if silence_id else None
        if found is None:
            raise _nothing(str(silence_id))
        return _json(_shown(found, clock()), status)

    return router


def clock() -> int:
    return time.time_ns() // 1000


async def read_json(request: Request) -> object:
    """The body, whatever it is. Malformed, TooLarge."""
    body = await read_body(request.receive, BODY_LIMIT_BYTES, lambda _: None)
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"the body is not JSON: {error}") from None


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _nothing(silence_id: str) -> NotFound:
    return NotFound(f"there is no silence {silence_id}; GET /silences lists them")


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise _nothing(text) from None


def _shown(silence: Silence, now: int) -> dict[str, object]:
    return {
        "id": str(silence.id),
        "state": silence.state(now),
        "matchers": [format_matcher(matcher) for matcher in silence.matchers],
        "author": silence.author,
        "comment": silence.comment,
        "starts_at": to_rfc3339(silence.starts_at),
        "ends_at": to_rfc3339(silence.ends_at),
        "updated_at": to_rfc3339(silence.updated_at),
    }


def _silence(body: object, silence_id: UUID, now: int) -> Silence:
    """What a body asks for; each refusal names the field."""
    if not isinstance(body, dict):
        raise Malformed(f"the body must be an object with {', '.join(_FIELDS)}")
    for key in body:
        if key not in _FIELDS:
            near = difflib.get_close_matches(key, _FIELDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_FIELDS)}"
            raise Malformed(f"{key}: no such field; {hint}", field=key)
    matchers = body.get("matchers", [])
    matchers = [matchers] if isinstance(matchers, str) else matchers
    if not isinstance(matchers, list) or not all(isinstance(one, str) for one in matchers):
        raise Malformed('matchers: must be a list of texts like name="Mistral"', field="matchers")
    try:
        parsed = tuple(matcher for one in matchers for matcher in parse_matchers(one))
    except ValueError as error:
        raise Malformed(f"matchers: {error}", field="matchers") from None
    starts_at = _instant(body, "starts_at", now) if "starts_at" in body else now
    if "duration" in body and "ends_at" in body:
        raise Malformed("duration: give it or ends_at, not both", field="duration")
    if "duration" in body:
        try:
            ends_at = starts_at + parse_duration(_text(body, "duration"))
        except ValueError as error:
            raise Malformed(f"duration: {error}", field="duration") from None
    elif "ends_at" in body:
        ends_at = _instant(body, "ends_at", now)
    else:
        raise Malformed("ends_at: say when the silence ends, or give a duration like 2h", field="ends_at")
    author, comment = (_text(body, name) for name in ("author", "comment"))
    return checked(Silence(silence_id, parsed, author, comment, starts_at, ends_at, now))


def checked(silence: Silence) -> Silence:
    """The silence, if it makes sense. Malformed names the field."""
    try:
        rules.check(silence.matchers, silence.author, silence.comment, silence.starts_at, silence.ends_at)
    except ValueError as error:
        raise Malformed(str(error), field=str(error).split(":", 1)[0]) from None
    return silence


def _text(body: dict[str, object], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str):
        raise Malformed(f"{name}: must be a text", field=name)
    if "\0" in value or len(value) > 1000:
        raise Malformed(f"{name}: a text of at most 1000 characters, without NUL", field=name)
    return value


def _instant(body: dict[str, object], name: str, now: int) -> int:
    try:
        return parse_instant(_text(body, name), now)
    except ValueError as error:
        raise Malformed(f"{name}: {error}", field=name) from None
