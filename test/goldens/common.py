"""What the golden scripts share: the generator of weights and batches, the scaled torchvision ResNet18, safetensors files.

Needs numpy, torch and torchvision (Debian: python3-torch, python3-torchvision).
"""
import json
import struct

import numpy as np
import torch
from torchvision.models.resnet import BasicBlock, ResNet

# --- generator; `generate.ts` is its twin, word for word -------------------------------------------------------------------


def mix(x):
    """A bijective 32-bit hash (lowbias32 of C. Wellons' hash prospector, public domain). x: uint32 array."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def name_hash(name):
    """FNV-1a of the name's bytes: a tensor's values depend on its name, not on its place in a list."""
    h = 0x811C9DC5
    for byte in name.encode():
        h = ((h ^ byte) * 0x01000193) & 0xFFFFFFFF
    return h


def random_bits(name, seed, n):
    """uint32[n]: element i is a hash of (seed, name, i)."""
    key = mix(np.array([(name_hash(name) + seed) & 0xFFFFFFFF], np.uint32))
    return mix(key ^ mix(np.arange(n, dtype=np.uint32) + np.uint32(0x9E3779B9)))


def uniform(name, seed, n):
    """float64[n] in [-1, 1), multiples of 2^-23: exact in float32 too."""
    return (random_bits(name, seed, n) >> np.uint32(8)).astype(np.float64) / 2 ** 23 - 1


def bound(energy, fan_in):
    """The largest power of two b <= 2 with b^2 * fan_in <= energy."""
    b = 2.0
    while b * b * fan_in > energy:
        b /= 2
    return b


def generated_tensor(name, shape, seed):
    """float32 (int64 for num_batches_tracked) in PyTorch's layout."""
    n = int(np.prod(shape))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_mean"):
        return np.zeros(shape, np.float32)
    if name.endswith("running_var"):
        return np.ones(shape, np.float32)
    u = uniform(name, seed, n)
    if len(shape) == 4:
        u = u * bound(6, shape[1] * shape[2] * shape[3])
    elif len(shape) == 2:
        u = u * bound(3, shape[1])
    elif name.endswith("weight"):
        u = 1 + u / 4
    else:
        u = u / 4
    return u.astype(np.float32).reshape(shape)


def generated_batch(index, shape, classes, seed):
    """images float32 [N, C, H, W] in [-2, 2): noise plus an offset per image and channel; labels int64 [N]."""
    n, c, h, w = shape
    noise = uniform("batch%d.noise" % index, seed, n * c * h * w).reshape(shape)
    offset = uniform("batch%d.offset" % index, seed, n * c).reshape(n, c, 1, 1)
    labels = random_bits("batch%d.labels" % index, seed, n) % np.uint32(classes)
    return (noise + offset).astype(np.float32), labels.astype(np.int64)


def checksum(array):
    """uint32: order-sensitive hash of an array's 32-bit words (float32 bits, or integers below 2^32)."""
    flat = array.reshape(-1)
    words = flat.view(np.uint32) if flat.dtype == np.float32 else flat.astype(np.uint32)
    return int(mix(words ^ mix(np.arange(words.size, dtype=np.uint32))).sum(dtype=np.uint64) & np.uint64(0xFFFFFFFF))


# --- the net ---------------------------------------------------------------------------------------------------------------


class ScaledResNet18(ResNet):
    """torchvision's ResNet18 with `width` channels where it has 64 (so 2, 4 and 8 times as many further on).

    stem 'imagenet': 7x7 stride 2 and max pool, as torchvision's; 'cifar': 3x3 stride 1, no max pool. Names are torchvision's.
    """

    def __init__(self, width, stem, classes):
        self.width, self.stem = width, stem
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=classes)
        self.fc = torch.nn.Linear(8 * width, classes)

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        if planes == 64:  # the first call: the stem exists already, at torchvision's width
            self.inplanes = self.width
            cifar = self.stem == "cifar"
            self.conv1 = torch.nn.Conv2d(3, self.width, 3 if cifar else 7, 1 if cifar else 2, 1 if cifar else 3, bias=False)
            self.bn1 = torch.nn.BatchNorm2d(self.width)
            if cifar:
                self.maxpool = torch.nn.Identity()
        return super()._make_layer(block, planes // 64 * self.width, blocks, stride, dilate)


# --- safetensors -----------------------------------------------------------------------------------------------------------

DTYPES = {"F64": np.float64, "F32": np.float32, "I64": np.int64}


def write_safetensors(path, tensors, metadata):
    """tensors: name -> C-contiguous array, all of one dtype size; metadata: string -> string."""
    letters = {np.dtype(t): letter for letter, t in DTYPES.items()}
    header, chunks, end = {"__metadata__": metadata}, [], 0
    for name, array in tensors.items():
        chunks.append(np.ascontiguousarray(array).tobytes())
        header[name] = {"dtype": letters[array.dtype], "shape": list(array.shape), "data_offsets": [end, end + len(chunks[-1])]}
        end += len(chunks[-1])
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(chunks))


def read_safetensors(path):
    """name -> array."""
    with open(path, "rb") as file:
        raw = file.read()
    size = struct.unpack("<Q", raw[:8])[0]
    tensors = {}
    for name, info in json.loads(raw[8:8 + size]).items():
        if name != "__metadata__":
            begin, end = (8 + size + offset for offset in info["data_offsets"])
            tensors[name] = np.frombuffer(raw[begin:end], DTYPES[info["dtype"]]).reshape(info["shape"])
    return tensors
