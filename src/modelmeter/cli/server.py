"""Questions to a running server, over HTTP."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from typing import Any

from modelmeter.errors import ModelmeterError, WrongSetting


def base_url(url: str) -> str:
    """Where the server is; an URL that ends in /stats or /events, as ETL jobs have it, will do."""
    url = url.rstrip("/")
    for ending in ("/stats", "/events"):
        url = url.removesuffix(ending)
    return url


def get(url: str, path: str, **query: str | None) -> dict[str, Any]:
    return send("GET", url, path, query, timeout_seconds=30)


def send(
    method: str,
    url: str,
    path: str,
    query: Mapping[str, str | None],
    *,
    timeout_seconds: float = 3600,
    content: bytes | None = None,
) -> dict[str, Any]:
    """A request, with `content` as its body; the answer's JSON."""
    with ask(
        url, path, "application/json", query, method=method, timeout_seconds=timeout_seconds, content=content
    ) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


@contextmanager
def ask(
    url: str,
    path: str,
    accept: str,
    query: Mapping[str, str | None],
    *,
    method: str = "GET",
    timeout_seconds: float = 60,
    content: bytes | None = None,
) -> Iterator[HTTPResponse]:
    """The answer in some form, to be read in the block; ModelmeterError for a refusal or no answer."""
    wanted = urllib.parse.urlencode({key: value for key, value in query.items() if value is not None})
    address = f"{base_url(url)}{path}" + (f"?{wanted}" if wanted else "")
    if not address.startswith(("http://", "https://")):
        raise WrongSetting(f"url: {url!r} is no http:// or https:// address")
    try:
        headers = {"Accept": accept}
        request = urllib.request.Request(address, content, headers, method=method)  # noqa: S310  checked above
        with urllib.request.urlopen(request, timeout=timeout_seconds) as answer:  # noqa: S310
            yield answer
    except BrokenPipeError:
        raise  # of what the block writes to
    except urllib.error.HTTPError as error:
        try:
            detail = json.load(error).get("detail", error.reason)
        except ValueError:
            detail = error.reason
        raise ModelmeterError(str(detail)) from None
    except HTTPException as error:
        raise ModelmeterError(f"the answer broke off ({error!r:.100}); the server's log may say why") from None
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise ModelmeterError(
            f"no answer from {base_url(url)} ({getattr(reason, 'strerror', None) or reason}); "
            "is it running? Start it with: modelmeter serve. If it is elsewhere: --url or STATS_API_URL"
        ) from None
