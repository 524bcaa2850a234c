"""Errors as application/problem+json (RFC 9457)."""

from http import HTTPStatus

import msgspec
from starlette.exceptions import HTTPException
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


async def on_http_error(request: Request, error: Exception) -> Response:
    """The same form for what the router refuses: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    detail = {
        404: f"there is nothing at {request.url.path}; /docs lists what there is",
        405: f"{request.method} is not for {request.url.path}; /docs lists what is",
    }.get(error.status_code, error.detail)
    response = problem(error.status_code, HTTPStatus(error.status_code).phrase, detail)
    response.headers.update(error.headers or {})
    return response


async def on_error(_request: Request, error: Exception) -> Response:
    """Starlette's handler for our own errors."""
    assert isinstance(error, ModelmeterError)
    return problem_of(error)


async def on_bug(_request: Request, _error: Exception) -> Response:
    """A bug; the server logs it."""
    return problem(500, "Internal error", "this is a bug of modelmeter; the server's log has more")
