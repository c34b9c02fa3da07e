"""Safetensors files, read strictly and without the package: float32 or int32 arrays, and texts about them.

A file is the length of its header (8 bytes, little-endian), the header (a JSON object: for every array its dtype, shape
and the bytes that it takes, and under ``__metadata__`` texts), and the bytes of the arrays without gaps.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from verify.files.strict_json import (
    Words,
    expect_integer,
    expect_list,
    expect_object,
    expect_text,
    fail,
    parse_json,
)

MAX_HEADER_BYTES = 2**16
MAX_AXES = 8
#: Axes of an array multiply to this at most; numpy has no arrays beyond it, also where one axis is 0.
MAX_NUMBERS = 2**40
_LENGTH_BYTES = 8
_METADATA = "__metadata__"
#: Numbers of four bytes.
_DTYPES = {"F32": "<f4", "I32": "<i4"}


def parse_tensors(
    data: bytes, dtypes: tuple[str, ...] = ("F32",), loose: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays (read-only) and the metadata of a safetensors file with the content ``data``.

    Args:
        data: the whole file.
        dtypes: which of ``F32`` and ``I32`` an array may be.
        loose: take arrays without elements, and numbers that are not finite, too.

    Raises:
        verify.files.strict_json.StrictJsonError: the header is cut off, absurdly long or no strict JSON; an array is
            of another dtype, or its shape, its bytes and the file do not fit each other; or it is empty or a number is
            not finite.
    """
    size = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if len(data) < _LENGTH_BYTES or size > min(MAX_HEADER_BYTES, len(data) - _LENGTH_BYTES):
        fail("header", f"a length of at most {MAX_HEADER_BYTES} bytes, and as many", Words(f"{len(data)} bytes in all"))
    header = expect_object(parse_json(data[_LENGTH_BYTES : _LENGTH_BYTES + size], max_keys=1000), "header")
    metadata = expect_object(header.pop(_METADATA, {}), _METADATA)
    for name, text in metadata.items():
        expect_text(text, f"{_METADATA}.{name}")
    body = data[_LENGTH_BYTES + size :]
    arrays, spans = {}, [(0, 0), (len(body), len(body))]
    for name, entry in header.items():
        stated = expect_object(entry, name, ["dtype", "shape", "data_offsets"])
        if stated["dtype"] not in dtypes:
            fail(f"{name}.dtype", " or ".join(f'"{dtype}"' for dtype in dtypes), stated["dtype"])
        sizes = expect_list(stated["shape"], f"{name}.shape")
        if len(sizes) > MAX_AXES:
            fail(f"{name}.shape", f"at most {MAX_AXES} axes", Words(f"{len(sizes)}"))
        shape = [expect_integer(n, f"{name}.shape", 0 if loose else 1) for n in sizes]
        offsets = expect_list(stated["data_offsets"], f"{name}.data_offsets")
        span = tuple(expect_integer(n, f"{name}.data_offsets", 0, len(body)) for n in offsets)
        if len(span) != 2 or span[1] - span[0] != 4 * math.prod(shape):
            fail(
                f"{name}.data_offsets", f"the begin and the end of {4 * math.prod(shape)} bytes", stated["data_offsets"]
            )
        if math.prod(n or 1 for n in shape) > MAX_NUMBERS:
            fail(f"{name}.shape", f"axes that multiply to at most {MAX_NUMBERS}", stated["shape"])
        spans.append((span[0], span[1]))
        arrays[name] = np.frombuffer(body[span[0] : span[1]], dtype=_DTYPES[stated["dtype"]]).reshape(shape)
        if not loose and not np.isfinite(arrays[name]).all():
            fail(name, "finite numbers", Words("NaN or an infinity"))
    if any(one[1] != other[0] for one, other in pairwise(sorted(spans))):
        fail("data_offsets", f"arrays that take all {len(body)} bytes, without gaps", Words("others"))
    return arrays, metadata
