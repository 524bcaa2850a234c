"""Questions to a running server, over HTTP."""

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from modelmeter.errors import ModelmeterError, WrongSetting


def base_url(url: str) -> str:
    """Where the server is; an URL that ends in /stats or /events, as ETL jobs have it, will do."""
    url = url.rstrip("/")
    for ending in ("/stats", "/events"):
        url = url.removesuffix(ending)
    return url


def get(url: str, path: str, **query: str | None) -> dict[str, Any]:
    wanted = urllib.parse.urlencode({key: value for key, value in query.items() if value is not None})
    address = f"{base_url(url)}{path}" + (f"?{wanted}" if wanted else "")
    if not address.startswith(("http://", "https://")):
        raise WrongSetting(f"url: {url!r} is no http:// or https:// address")
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310  checked above
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        try:
            detail = json.load(error).get("detail", error.reason)
        except ValueError:
            detail = error.reason
        raise ModelmeterError(str(detail)) from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise ModelmeterError(
            f"no answer from {base_url(url)} ({getattr(reason, 'strerror', None) or reason}); "
            "is it running? Start it with: modelmeter serve. If it is elsewhere: --url or STATS_API_URL"
        ) from None
