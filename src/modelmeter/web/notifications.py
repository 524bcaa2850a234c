"""GET /notifications: what waits for each destination, what was delivered, what was given up and why."""

import time
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from modelmeter.config import Config
from modelmeter.errors import Malformed
from modelmeter.notify.current import CurrentNotifications
from modelmeter.store.deliveries import Deliveries, Line
from modelmeter.web.parameters import read_limit
from modelmeter.window import DAY, to_rfc3339

_LIMIT, _MOST = 100, 1000
_STATUSES = {"delivered": "delivered", "given_up": "given up"}


def make_router(config: Config, current: CurrentNotifications) -> APIRouter:
    router = APIRouter(tags=["notifications"])
    store = Deliveries(config.database_url)

    def read(status: str | None, limit: int) -> dict[str, Any]:
        now = time.time_ns() // 1000
        current.refresh()
        by_name = {one["destination"]: one for one in store.by_destination(now - DAY)}
        known = current.now.destinations()
        nothing = {
            "pending": 0,
            "retrying": 0,
            "oldest_pending_at": None,
            "delivered": 0,
            "given_up": 0,
            "last_at": None,
        }
        for name, destination in known.items():
            by_name.setdefault(name, {"destination": name, "kind": destination.kind, **nothing})
        for one in by_name.values():
            one["in_file"] = one["destination"] in known
            for key in ("oldest_pending_at", "last_at"):
                one[key] = None if one[key] is None else to_rfc3339(one[key])
        found: dict[str, Any] = {"destinations": [by_name[name] for name in sorted(by_name)]}
        if status in (None, "pending"):
            found["pending"] = [_shown(one, "next_attempt_at") for one in store.waiting(limit)]
        if status != "pending":
            found["history"] = [_shown(one, "at") for one in store.history(_STATUSES[status] if status else "", limit)]
        return found

    @router.get(
        "/notifications",
        summary="What waits for each destination, and what became of the rest",
        openapi_extra={
            "parameters": [
                {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
                for name, text in (
                    ("status", "Only `pending`, `delivered` or `given_up`."),
                    ("limit", f"At most so many of each, from 1 to {_MOST}. Default: {_LIMIT}."),
                )
            ]
        },
    )
    async def notifications(request: Request) -> Response:
        status = request.query_params.get("status")
        if status not in (None, "pending", *_STATUSES):
            raise Malformed(f"status: {status!r} is none of pending, {', '.join(_STATUSES)}", field="status")
        found = await run_in_threadpool(read, status, read_limit(request, _LIMIT, _MOST))
        return Response(msgspec.json.encode(found), media_type="application/json")

    return router


def _shown(line: Line, when: str) -> dict[str, object]:
    return {
        "deduplication_key": line.id,
        "destination": line.destination,
        "kind": line.kind,
        "status": line.status.replace(" ", "_"),
        "group": line.group_key,
        "why": line.why,
        "alerts": line.alerts,
        "attempts": line.attempts,
        "reason": line.reason or None,
        "created_at": to_rfc3339(line.created_at),
        when: to_rfc3339(line.at),
    }
