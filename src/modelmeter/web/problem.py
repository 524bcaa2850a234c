"""Errors as application/problem+json (RFC 9457)."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from modelmeter.errors import Busy, ModelmeterError


def problem(status: int, title: str, detail: str, **extra: object) -> Response:
    """One problem document; `extra` are more members of it."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **extra}
    return Response(msgspec.json.encode(body), status, media_type="application/problem+json")


def problem_of(error: ModelmeterError) -> Response:
    response = problem(error.status, error.title, error.detail, **error.extra)
    if isinstance(error, Busy):
        response.headers["Retry-After"] = str(error.retry_after_seconds)
    return response


async def on_error(_request: Request, error: Exception) -> Response:
    """Starlette's handler for our own errors."""
    assert isinstance(error, ModelmeterError)
    return problem_of(error)
