#!/usr/bin/env python3
"""Trains a torchvision ResNet18 from a given state dict on CIFAR-10 in file order: what `forkstep train --init --no-shuffle` does.

    /usr/bin/python3 test/goldens/reproduce.py --init model.safetensors --data DIR --steps 10 --batch 32 --lr 0.05 --momentum 0.9

Prints {"step": s, "loss": l} a line, the mean cross-entropy of batch s before step s, in train mode. Width, stem and number of
classes are read off the state dict. DIR holds data_batch_1.bin ... data_batch_5.bin, or a folder cifar-10-batches-bin with them.
"""
import argparse
import glob
import json
import os

import numpy as np
import torch

from common import ScaledResNet18, read_safetensors

RECORD = 1 + 3 * 32 * 32
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--init", required=True, help="state dict, safetensors, torchvision's names and layouts")
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.005)
    parser.add_argument("--momentum", type=float, default=0.0)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--nesterov", action="store_true")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def read_records(folder, count):
    """The first `count` records in file order, uint8 [count, 3073]."""
    nested = os.path.join(folder, "cifar-10-batches-bin")
    files = sorted(glob.glob(os.path.join(nested if os.path.isdir(nested) else folder, "data_batch_*.bin")))
    parts, have = [], 0
    for file in files:
        size = os.path.getsize(file)
        if size % RECORD:
            raise SystemExit("reproduce: %s must be a multiple of %d bytes, got %d" % (file, RECORD, size))
        if have < count:
            parts.append(np.fromfile(file, np.uint8, count=(count - have) * RECORD))
            have += parts[-1].size // RECORD
    if have < count:
        raise SystemExit("reproduce: %d records needed, %d found in %s" % (count, have, folder))
    return np.concatenate(parts).reshape(-1, RECORD)


def main():
    args = options()
    dtype = getattr(torch, args.dtype)
    torch.set_num_threads(args.threads)
    state = read_safetensors(args.init)
    stem = "cifar" if state["conv1.weight"].shape[2] == 3 else "imagenet"
    model = ScaledResNet18(state["conv1.weight"].shape[0], stem, state["fc.weight"].shape[0])
    model.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    model = model.to(dtype).train()
    optimizer = torch.optim.SGD(model.parameters(), args.lr, args.momentum, 0, args.weight_decay, args.nesterov)

    records = read_records(args.data, args.steps * args.batch)
    mean, std = (torch.tensor(values, dtype=dtype).view(1, 3, 1, 1) for values in (MEAN, STD))
    for step in range(args.steps):
        batch = torch.from_numpy(records[step * args.batch:(step + 1) * args.batch])
        images = (batch[:, 1:].reshape(-1, 3, 32, 32).to(dtype) / 255 - mean) / std
        loss = torch.nn.functional.cross_entropy(model(images), batch[:, 0].long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(json.dumps({"step": step, "loss": loss.item()}), flush=True)


if __name__ == "__main__":
    main()
