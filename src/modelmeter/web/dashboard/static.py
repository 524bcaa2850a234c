"""The files that the pages load: out of the package, packed once, under one name that changes when any of them does.

As the hash of all stands in the path, modules find each other beside them, and whatever is cached never goes stale.
"""

import gzip
import hashlib
from dataclasses import dataclass
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
_FOREVER = "public, max-age=31536000, immutable"
_LEAST_BYTES = 600  # what is smaller gains nothing


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    packed: bytes
    media_type: str
    etag: str


class StaticFiles:
    """All of them in memory; `root` is where pages find them."""

    def __init__(self) -> None:
        folder = resources.files(__package__) / "static"
        self._files: dict[str, _File] = {}
        whole = hashlib.blake2b(digest_size=8)
        for item in sorted(folder.iterdir(), key=lambda one: one.name):
            media_type = _TYPES.get(item.name[item.name.rfind(".") :])
            if media_type is None:
                continue
            content = item.read_bytes()
            digest = hashlib.blake2b(content, digest_size=8).hexdigest()
            whole.update(f"{item.name} {digest}\n".encode())
            self._files[item.name] = _File(content, gzip.compress(content, 9, mtime=0), media_type, f'"{digest}"')
        self.root = f"/ui/static/{whole.hexdigest()}"

    def respond(self, request: Request, name: str) -> Response | None:
        """None when there is no such file. An old hash gets today's file: nothing older is kept."""
        file = self._files.get(name)
        if file is None:
            return None
        headers = {"etag": file.etag, "cache-control": _FOREVER, "vary": "accept-encoding"}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        if takes_gzip(request):
            headers["content-encoding"] = "gzip"
            return Response(file.packed, headers=headers, media_type=file.media_type)
        return Response(file.content, headers=headers, media_type=file.media_type)


def takes_gzip(request: Request) -> bool:
    return "gzip" in request.headers.get("accept-encoding", "")


def packed(request: Request, response: Response) -> Response:
    """The same response, gzipped when that is wanted and pays."""
    if len(response.body) >= _LEAST_BYTES and takes_gzip(request):
        response.body = gzip.compress(bytes(response.body), 5, mtime=0)
        response.headers["content-length"] = str(len(response.body))
        response.headers["content-encoding"] = "gzip"
    response.headers["vary"] = "accept-encoding"
    return response
