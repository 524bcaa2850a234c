"""A request's body: read within the limit, packed and unpacked."""

import zlib
from collections.abc import Callable, Iterator

import zstandard
from starlette.types import Receive

from modelmeter.errors import Malformed, TooLarge, Unsupported

_GZIP = 31  # zlib's window bits for a gzip member
_ZSTD_WINDOW_BYTES = 8 * 1024 * 1024  # what every receiver of zstd over HTTP must hold (RFC 9659)
_LEAST_PIECE_BYTES, _LARGEST_PIECE_BYTES = 4096, 1024 * 1024


class Disconnected(Exception):
    """The client went away before its body was whole."""


def _too_large(limit: int, how: str) -> TooLarge:
    return TooLarge(f"the body is over {limit} bytes {how}; send fewer events at a time", limit_bytes=limit)


async def read_body(receive: Receive, limit: int, on_part: Callable[[int], None]) -> bytes:
    """The whole body. TooLarge beyond `limit` bytes, without keeping more than that.

    `on_part` hears how many bytes there are so far, before they are kept, and may raise.
    """
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
        on_part(size)
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


def _pieces(body: bytes, at: int) -> Iterator[memoryview]:
    """The body from `at` on in pieces that grow: what a packer leaves of one it copies, and members may be tiny."""
    size = _LEAST_PIECE_BYTES
    view = memoryview(body)
    while at < len(body):
        yield view[at : at + size]
        at += size
        size = min(size * 2, _LARGEST_PIECE_BYTES)


def _gunzip(body: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    size = at = 0
    while at < len(body):
        member = zlib.decompressobj(_GZIP)
        for piece in _pieces(body, at):
            try:
                part = member.decompress(piece, limit + 1 - size)
            except zlib.error as error:
                raise Malformed(f"the body is not gzip: {error} at byte {at}") from None
            at += len(piece) - len(member.unused_data)
            size += len(part)
            if size > limit:
                raise _too_large(limit, "unpacked")
            if part:
                parts.append(part)
            if member.eof:
                break
        else:
            raise Malformed(f"the gzip body is cut off after {len(body)} bytes")
    return b"".join(parts)


def _unzstd(body: bytes, limit: int) -> bytes:
    if not body:
        raise Malformed("the body is empty")
    packer = zstandard.ZstdDecompressor(max_window_size=max(limit, _ZSTD_WINDOW_BYTES))
    try:
        data = packer.stream_reader(body, read_across_frames=True).read(limit + 1)
        if len(data) > limit:
            raise _too_large(limit, "unpacked")
        at = 0
        while at < len(body):  # the reader does not tell a frame that is cut off; the output is small, we know now
            frame = packer.decompressobj()
            for piece in _pieces(body, at):
                frame.decompress(piece)
                at += len(piece) - len(frame.unused_data)
                if frame.eof:
                    break
            else:
                raise Malformed(f"the zstd body is cut off after {len(body)} bytes")
    except zstandard.ZstdError as error:
        if "too much memory" in str(error):
            raise _too_large(limit, "in its window") from None
        raise Malformed(f"the body is not zstd: {error}") from None
    return data
