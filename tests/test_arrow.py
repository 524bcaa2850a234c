"""An Arrow stream is measured before it is unpacked: neither a bomb nor a forged size ends the process."""

import contextlib
import io
import struct
from typing import Any

import numpy as np
import polars as pl
import pytest

from modelmeter.decoder import Bounds, Decoder
from modelmeter.decoder.ipc import unpacked_size
from modelmeter.errors import Malformed, TooLarge

BOUNDS = Bounds(1_760_000_000_000_000, 0, 1_760_000_000_000_000)
packings = pytest.mark.parametrize("packing", ["uncompressed", "lz4", "zstd"])


def stream(rows: int, packing: Any) -> bytes:
    frame = pl.DataFrame(
        {
            "name": pl.Series(["a", "b"] * (rows // 2), dtype=pl.Categorical),
            "version": ["1"] * rows,
            "m": np.zeros(rows),
            "n": [1.0, None] * (rows // 2),
        }
    )
    out = io.BytesIO()
    frame.write_ipc_stream(out, compression=packing)
    return out.getvalue()


def decode(body: bytes, limit_bytes: int = 2**25) -> int:
    return Decoder(lambda _: None, lambda _: None).arrow(body, BOUNDS, limit_bytes).accepted


@packings
def test_the_size_is_that_of_the_unpacked_columns(packing: str) -> None:
    body = stream(10_000, packing)
    assert 2 * 8 * 10_000 < unpacked_size(body) < 2.5 * len(stream(10_000, "uncompressed"))
    assert decode(body) == 10_000


@packings
def test_a_bomb_is_too_large_and_the_limit_is_named(packing: str) -> None:
    body = stream(10_000, packing)
    size = unpacked_size(body)
    assert decode(body, size) == 10_000
    with pytest.raises(TooLarge, match=f"over {size - 1}"):
        decode(body, size - 1)


@packings
def test_a_stream_cut_off_anywhere_is_malformed_or_whole_batches(packing: str) -> None:
    body = stream(4, packing)
    for length in range(len(body)):
        with contextlib.suppress(ValueError):
            assert unpacked_size(body[:length]) <= unpacked_size(body)


@pytest.mark.parametrize("packing", ["lz4", "zstd"])
@pytest.mark.parametrize("forged", [2**46, 2**62, 2**63 - 1, -2, -(2**63)])
def test_a_forged_size_of_a_buffer_is_refused_before_it_is_asked_for(packing: str, forged: int) -> None:
    body = stream(1000, packing)
    true = struct.pack("<q", 8000)  # of the metric m
    assert true in body
    with pytest.raises((Malformed, TooLarge)):
        decode(body.replace(true, struct.pack("<q", forged)))


def test_any_bit_turned_in_a_stream_is_measured_or_a_value_error() -> None:
    body = stream(100, "zstd")
    for at in range(len(body)):
        for bit in range(0, 8, 3):
            broken = bytearray(body)
            broken[at] ^= 1 << bit
            try:
                assert unpacked_size(bytes(broken)) >= 0
            except ValueError:
                continue


@pytest.mark.parametrize("body", [b"", b"\0\0\0\0", b"\xff" * 4, b"\xff" * 64, bytes(64), b"{}", b"ARROW1\0\0" * 9])
def test_what_is_no_stream_has_no_size(body: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert unpacked_size(body) == 0
    with pytest.raises(Malformed):
        decode(body)
