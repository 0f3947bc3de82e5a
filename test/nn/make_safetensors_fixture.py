#!/usr/bin/env python3
"""Writes fixture.safetensors with struct and json alone: a reader's cross-check that shares no code with the writer under test.

    python3 test/nn/make_safetensors_fixture.py      (no packages needed; same bytes every run)
"""
import json
import os
import struct

TENSORS = [  # name, dtype, struct letter, shape, values; U8 first, so that what follows is not aligned
    ("bytes", "U8", "B", [3], [0, 7, 255]),
    ("weight", "F32", "f", [2, 3], [0.0, -1.5, 3.25, 1e-45, 3.4028234663852886e38, float("-inf")]),
    ("num_batches_tracked", "I64", "q", [], [-(2 ** 62) - 1]),
    ("double", "F64", "d", [1, 2], [0.1, -5e-324]),
    ("empty", "F32", "f", [0, 4], []),
    ("na\u00efve \"name\"", "F32", "f", [1], [0.5]),
]

header, data = {"__metadata__": {"format": "pt", "note": "h\u00e9"}}, b""
for name, dtype, letter, shape, values in TENSORS:
    chunk = struct.pack("<%d%s" % (len(values), letter), *values)
    header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(chunk)]}
    data += chunk
text = json.dumps(header, ensure_ascii=False).encode()
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixture.safetensors"), "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text + data)
