"""One HTTP POST, over within its time whatever the other side does: hangs, drips, dies in the middle."""

import asyncio
import email.utils
import functools
import logging
import ssl
import time
from collections.abc import Mapping, Sequence

import httpx

from modelmeter.notify.outcome import Delivered, Failed, Outcome, clean, is_permanent

_ANSWER_LIMIT_BYTES = 2048
logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log each URL, and an URL may be a secret


def post(
    url: str, content: bytes, headers: Mapping[str, str], timeout_seconds: float, secrets: Sequence[str] = ()
) -> Outcome:
    """Any 2xx is delivered. Redirects are not followed: the message is for who stands in the file."""
    _tls()
    try:
        return asyncio.run(_post(url, content, headers, timeout_seconds, [url, *secrets]))
    except TimeoutError:
        return Failed(f"no answer within {timeout_seconds:g} s")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return Failed(clean(f"{type(error).__name__}: {error}".removesuffix(": "), [url, *secrets]))


@functools.cache
def _tls() -> ssl.SSLContext:
    """Made once: it reads all certificates."""
    return httpx.create_ssl_context()


async def _post(
    url: str, content: bytes, headers: Mapping[str, str], timeout_seconds: float, secrets: Sequence[str]
) -> Outcome:
    async with (
        asyncio.timeout(timeout_seconds),
        httpx.AsyncClient(timeout=timeout_seconds, verify=_tls()) as client,
        client.stream("POST", url, content=content, headers=headers) as response,
    ):
        if response.is_success:
            return Delivered()  # the status is the answer; the rest of it need not even arrive
        said = b""
        async for part in response.aiter_raw():
            said += part
            if len(said) > _ANSWER_LIMIT_BYTES:
                break
        words = f"HTTP {response.status_code}: {said[:_ANSWER_LIMIT_BYTES].decode(errors='replace')}".rstrip(": ")
        if response.is_redirect:
            words = f"HTTP {response.status_code}: it redirects; write the final address into the file"
        return Failed(
            clean(words, secrets),
            is_permanent(response.status_code),
            retry_after(response.headers.get("retry-after", ""), time.time()),
        )


def retry_after(text: str, now_seconds: float) -> float | None:
    """The header Retry-After, seconds or a date, as seconds from now; None when there is none or it is unreadable."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - now_seconds, 0)
    except (ValueError, TypeError):
        return None
