"""Small safetensors: what the package writes is read, and nothing that is broken."""

import json

import numpy as np
import pytest
from safetensors.numpy import save

from verify.files.strict_json import StrictJsonError
from verify.files.tensors import MAX_HEADER_BYTES, parse_tensors

ARRAYS = {"b": np.arange(3, dtype=np.float32), "a": np.ones((2, 4), dtype=np.float32)}


def test_what_the_package_writes_is_read():
    arrays, metadata = parse_tensors(save(ARRAYS, metadata={"format": "mine"}))
    assert metadata == {"format": "mine"} and arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
    assert parse_tensors(save({})) == ({}, {})


def content(header, body=b"\0" * 8, size=None):
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + body


def entry(shape=(2,), offsets=(0, 8), dtype="F32", **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


NAN = np.array([0, np.nan], dtype="<f4").tobytes()

BROKEN = {
    "empty": (b"", "header: expected a length"),
    "cut in the length": (b"\1\0", "header: expected a length"),
    "cut in the header": (content({"a": entry()})[:20], "header: expected a length"),
    "a header without end": (content("{}", size=2**63), "header: expected a length"),
    "a long header": (content("{" + " " * MAX_HEADER_BYTES + "}"), "header: expected a length"),
    "no JSON": (content("pickle"), "expected JSON"),
    "a list": (content("[]"), "header: expected"),
    "twice": (content('{"a": 1, "a": 2}'), "every key once"),
    "metadata of numbers": (content({"__metadata__": {"n": 1}, "a": entry()}), "__metadata__.n: expected"),
    "another dtype": (content({"a": entry(dtype="F64", shape=(1,))}), 'a.dtype: expected "F32"'),
    "a field more": (content({"a": entry(order="C")}), "a: expected"),
    "no shape": (content({"a": {"dtype": "F32", "data_offsets": [0, 8]}}), "a: expected|shape"),
    "a negative length": (content({"a": entry(shape=(-2,))}), "a.shape: expected"),
    "true": (content({"a": entry(shape=(True, 2))}), "a.shape: expected"),
    "too short": (content({"a": entry(offsets=(0, 4))}), "the begin and the end of 8 bytes"),
    "backwards": (content({"a": entry(offsets=(8, 0))}), "the begin and the end of 8 bytes"),
    "beyond": (content({"a": entry(offsets=(4, 12))}), "a.data_offsets: expected"),
    "three offsets": (content({"a": entry(offsets=(0, 4, 8))}), "the begin and the end of 8 bytes"),
    "an overlap": (content({"a": entry(), "b": entry()}), "without gaps"),
    "a gap": (content({"a": entry(offsets=(4, 12))}, b"\0" * 12), "without gaps"),
    "bytes behind": (content({"a": entry()}, b"\0" * 9), "without gaps"),
    "an absurd shape": (content({"a": entry(shape=(2**40, 2**40))}), "the begin and the end of"),
    "not finite": (content({"a": entry()}, NAN), "a: expected finite numbers"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused(name):
    data, message = BROKEN[name]
    with pytest.raises(StrictJsonError, match=message):
        parse_tensors(data)
