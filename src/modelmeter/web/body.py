"""A request's body: read within the limit, packed and unpacked."""

import zlib

import zstandard
from starlette.types import Receive

from modelmeter.errors import Malformed, TooLarge, Unsupported

_GZIP = 31  # zlib's window bits for a gzip member


class Disconnected(Exception):
    """The client went away before its body was whole."""


def _too_large(limit: int, how: str) -> TooLarge:
    return TooLarge(f"the body is over {limit} bytes {how}; send fewer events at a time", limit_bytes=limit)


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole body. TooLarge beyond `limit` bytes, without keeping more than that."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Disconnected
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit, "as sent")
        if part:
            parts.append(part)
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def discard_body(receive: Receive, limit: int) -> None:
    """Read what is left of a body, up to `limit` bytes, and forget it.

    A connection that is closed on unread bytes is reset, and the answer that says why is lost with it.
    """
    size = 0
    while size <= limit:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body"):
            return
        size += len(message.get("body", b""))


def unpack(body: bytes, encoding: str, limit: int) -> bytes:
    """The body behind its Content-Encoding. TooLarge beyond `limit`, Malformed when broken or cut off."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding in ("gzip", "x-gzip"):
        return _gunzip(body, limit)
    if encoding == "zstd":
        return _unzstd(body, limit)
    raise Unsupported(f"Content-Encoding {encoding!r} is not known; send gzip, zstd or none")


def _gunzip(body: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    size, rest = 0, body
    while rest:
        member = zlib.decompressobj(_GZIP)
        try:
            parts.append(member.decompress(rest, limit + 1 - size))
        except zlib.error as error:
            raise Malformed(f"the body is not gzip: {error} at byte {len(body) - len(rest)}") from None
        size += len(parts[-1])
        if size > limit:
            raise _too_large(limit, "unpacked")
        if not member.eof:
            raise Malformed(f"the gzip body is cut off after {len(body)} bytes")
        rest = member.unused_data
    return b"".join(parts)


def _unzstd(body: bytes, limit: int) -> bytes:
    if not body:
        raise Malformed("the body is empty")
    try:
        reader = zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True)
        data = reader.read(limit + 1)
        if len(data) > limit:
            raise _too_large(limit, "unpacked")
        rest = body
        while rest:  # the reader does not tell a frame that is cut off; the output is known to be small by now
            frame = zstandard.ZstdDecompressor().decompressobj()
            frame.decompress(rest)
            if not frame.eof:
                raise Malformed(f"the zstd body is cut off after {len(body)} bytes")
            rest = frame.unused_data
    except zstandard.ZstdError as error:
        raise Malformed(f"the body is not zstd: {error}") from None
    return data
