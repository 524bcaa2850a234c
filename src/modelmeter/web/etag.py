"""ETag and 304: an answer is not made again while what it was made of is the same.

The tag is made of the request as it was sent, the form of the answer and the state of what is stored. It is a weak
one: `start` and `end` of a relative span move on in the answer though no event came or went.
"""

import hashlib
import re
from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from modelmeter import __version__

_TAG = re.compile(r'(?:W/)?"([^"]*)"')


def make_tag(request: Request, media: str, state: str) -> str:
    parts = (__version__, request.url.path, sorted(request.query_params.multi_items()), media, state)
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=16).hexdigest()


def respond_unless_known(request: Request, tag: str, respond: Callable[[], Response]) -> Response:
    """304 when the client has the answer (If-None-Match, RFC 9110, 13.1.2), else what `respond` makes; both tagged."""
    known = request.headers.get("if-none-match", "")
    response = Response(status_code=304) if known.strip() == "*" or tag in _TAG.findall(known) else respond()
    response.headers["ETag"] = f'W/"{tag}"'
    response.headers["Cache-Control"] = "no-cache"
    response.headers["Vary"] = "Accept"
    return response
