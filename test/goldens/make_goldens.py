#!/usr/bin/env python3
"""Makes the ResNet18 goldens beside this file: PyTorch float64 results, and how far PyTorch's own float32 is from them.

    /usr/bin/python3 test/goldens/make_goldens.py [CASE ...]       writes CASE.safetensors; all cases if none is named
    /usr/bin/python3 test/goldens/make_goldens.py --search CASE    ranks seeds by kink margin (see README.md), writes nothing
"""
import contextlib
import json
import os
import sys
from collections import namedtuple

import numpy as np
import torch
import torchvision

from common import ScaledResNet18, checksum, generated_batch, generated_tensor, write_safetensors

CLASSES = 10
SGD = {"lr": 0.05, "momentum": 0.9, "weightDecay": 5e-4, "steps": 3}
FACTORS = [8, 4, 2, 1, 0.5, 0.25, 0.125]
BATCHES = SGD["steps"] + 1

Case = namedtuple("Case", "stem width images seed")
# Seeds were chosen by --search.
CASES = {
    "cifar-w4": Case("cifar", 4, (6, 3, 16, 16), 280),
    "cifar-w5": Case("cifar", 5, (6, 3, 11, 13), 284),
    "cifar-w8": Case("cifar", 8, (6, 3, 12, 12), 884),
    "imagenet-w4": Case("imagenet", 4, (4, 3, 40, 40), 661),
    "imagenet-w5": Case("imagenet", 5, (4, 3, 37, 43), 99),
}

# Equivalent ways to compute the same thing in float32; they differ only in rounding.
Variant = namedtuple("Variant", "threads mkldnn channels_last reverse transpose")
VARIANTS = {
    "plain": Variant(1, True, False, False, False),
    "2 threads": Variant(2, True, False, False, False),
    "no mkldnn": Variant(1, False, False, False, False),
    "channels last": Variant(1, True, True, False, False),
    "batch reversed": Variant(1, True, False, True, False),
    "H and W swapped": Variant(1, True, False, False, True),
    "no mkldnn, batch reversed": Variant(1, False, False, True, False),
    "no mkldnn, H and W swapped": Variant(2, False, False, False, True),
}


class Run:
    """One case in one dtype and one variant. Hands out float64 arrays in the plain orientation, whatever the variant."""

    def __init__(self, case, dtype, variant, watch=False):
        self.case, self.dtype, self.variant = case, dtype, variant
        self.watch, self.seen = watch, []  # seen: (module, input) of each ReLU and max pool, where gradients are taken
        state = ScaledResNet18(case.width, case.stem, CLASSES).state_dict()
        self.state = {name: generated_tensor(name, tuple(t.shape), case.seed) for name, t in state.items()}
        self.batches = [generated_batch(i, case.images, CLASSES, case.seed) for i in range(BATCHES)]

    def turn(self, tensor):
        """[., ., H, W] to or from the variant's orientation."""
        return tensor.transpose(2, 3).contiguous() if self.variant.transpose and tensor.dim() == 4 else tensor

    def rows(self, tensor):
        """[N, ...] to or from the variant's order of samples."""
        return tensor.flip(0) if self.variant.reverse else tensor

    def model(self):
        model = ScaledResNet18(self.case.width, self.case.stem, CLASSES)
        model.load_state_dict({name: self.turn(torch.tensor(array)) for name, array in self.state.items()})
        model = model.to(self.dtype)
        if self.watch:
            for module in model.modules():
                if isinstance(module, (torch.nn.ReLU, torch.nn.MaxPool2d)):
                    module.register_forward_pre_hook(self.see)
        return model.to(memory_format=torch.channels_last) if self.variant.channels_last else model

    def see(self, module, inputs):
        if torch.is_grad_enabled():
            self.seen.append((module, inputs[0].detach().clone().double()))

    def batch(self, index):
        images, labels = (self.rows(torch.tensor(array)) for array in self.batches[index])
        images = self.turn(images.to(self.dtype))
        return (images.to(memory_format=torch.channels_last) if self.variant.channels_last else images), labels

    def loss(self, model, index):
        images, labels = self.batch(index)
        logits = model(images)
        return logits, torch.nn.functional.cross_entropy(logits, labels)

    def eval_logits(self, model, index):
        model.eval()
        with torch.no_grad():
            logits = self.rows(model(self.batch(index)[0]))
        model.train()
        return array_of(logits)

    def once(self):
        """Forward and backward on batch 0, then eval mode after forwards of batches 0, 1, 2 with the same parameters."""
        model = self.model()
        logits, loss = self.loss(model, 0)
        loss.backward()
        out = {"logits": array_of(self.rows(logits)), "loss": array_of(loss)}
        for name, parameter in model.named_parameters():
            out["gradient/" + name] = array_of(self.turn(parameter.grad))
        for name, buffer in model.named_buffers():
            if not name.endswith("num_batches_tracked"):
                out["running/" + name] = array_of(buffer)
        with torch.no_grad():
            for index in range(1, SGD["steps"]):
                self.loss(model, index)
        out["evalLogits"] = self.eval_logits(model, 0)
        return out

    def trials(self):
        """L(theta - f * lr * g) on batch 0 in train mode, g the raw gradient there."""
        model = self.model()
        self.loss(model, 0)[1].backward()
        losses = []
        for factor in FACTORS:
            trial = self.model()
            with torch.no_grad():
                for moved, parameter in zip(trial.parameters(), model.parameters()):
                    moved.sub_(parameter.grad, alpha=factor * SGD["lr"])
                losses.append(self.loss(trial, 0)[1].item())
        return {"trials/losses": np.array(losses)}

    def sgd(self, prefix, nesterov):
        """Losses before steps 0, 1, 2 (each on its own batch) and after the last; eval mode at the end."""
        model = self.model()
        optimizer = torch.optim.SGD(model.parameters(), SGD["lr"], SGD["momentum"], 0, SGD["weightDecay"], nesterov)
        losses = []
        for index in range(SGD["steps"]):
            optimizer.zero_grad()
            loss = self.loss(model, index)[1]
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        logits = self.eval_logits(model, 0)
        with torch.no_grad():
            losses.append(self.loss(model, SGD["steps"])[1].item())
        return {prefix + "/losses": np.array(losses), prefix + "/evalLogits": logits}

    def all(self):
        torch.set_num_threads(self.variant.threads)
        with torch.backends.mkldnn.flags(enabled=self.variant.mkldnn) if torch.backends.mkldnn.is_available() else contextlib.nullcontext():
            return {**self.once(), **self.trials(), **self.sgd("sgd", False), **self.sgd("nesterov", True)}


def array_of(tensor):
    return tensor.detach().contiguous().double().numpy().copy()  # a copy: buffers go on changing


def distance(got, want):
    """||a - b|| / ||b||; for the vectors of losses one figure a loss."""
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def distances(got, want):
    """name -> figure; name/0, name/1, ... for vectors of losses."""
    out = {}
    for name, array in want.items():
        if name.endswith("/losses"):
            out.update({"%s/%d" % (name, i): distance(got[name][i], array[i]) for i in range(array.size)})
        else:
            out[name] = distance(got[name], array)
    return out


def kink_margin(case, drive):
    """How many times float32's error the nearest ReLU input is from 0, or the second of a pooling window from its maximum, in the
    forward passes with gradient that drive(run) makes.

    Below about 1 a rounding error can switch a unit on or off, and gradients jump by far more than rounding.
    """
    runs = [Run(case, dtype, VARIANTS["plain"], watch=True) for dtype in (torch.float64, torch.float32)]
    for run in runs:
        drive(run)
    return min(kink_gap(module, exact) / float((exact - rounded).abs().max())
               for (module, exact), (_, rounded) in zip(runs[0].seen, runs[1].seen))


def first_margin(case):
    return kink_margin(case, lambda run: run.loss(run.model(), 0))


def training_margin(case):
    return kink_margin(case, lambda run: (run.sgd("", False), run.sgd("", True)))


def kink_gap(module, x):
    gap = x.abs()
    if isinstance(module, torch.nn.MaxPool2d):
        windows = torch.nn.functional.unfold(x.flatten(0, 1).unsqueeze(1), 3, padding=1, stride=2)  # x >= 0, so padding by 0 is harmless
        top = windows.topk(2, dim=1).values
        gap = (top[:, 0] - top[:, 1])[top[:, 0] > 0]
    return float(gap.min())


def make(name):
    case = CASES[name]
    exact = Run(case, torch.float64, VARIANTS["plain"])
    want = exact.all()
    table = {key: distances(Run(case, torch.float32, variant).all(), want) for key, variant in VARIANTS.items()}
    margins = {"batch0": first_margin(case), "training": training_margin(case)}
    batches = [{"images": checksum(images), "labels": labels.tolist(), "firstImages": images.reshape(-1)[:4].tolist()}
               for images, labels in exact.batches]
    state = [{"name": key, "shape": list(array.shape), "checksum": checksum(array), "first": array.reshape(-1)[:4].tolist()}
             for key, array in exact.state.items()]
    info = {
        "stem": case.stem, "width": case.width, "classes": CLASSES, "seed": case.seed, "images": list(case.images),
        "sgd": SGD, "factors": FACTORS, "kinkMargins": margins, "state": state, "batches": batches,
    }
    metadata = {
        "torch": torch.__version__, "torchvision": torchvision.__version__, "numpy": np.__version__,
        "case": json.dumps(info), "variants": json.dumps(list(VARIANTS)),
        "float32Distance": json.dumps({q: [float("%.4g" % table[v][q]) for v in VARIANTS] for q in table["plain"]}),
    }
    tensors = {key: array.astype(np.float64) for key, array in want.items()}
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".safetensors")
    write_safetensors(path, tensors, metadata)
    report(name, path, want, table, margins)


def report(name, path, want, table, margins):
    print("%s: %d bytes, kink margins %.1f on batch 0, %.1f over the SGD steps" % (name, os.path.getsize(path), *margins.values()))
    for group in ("logits", "loss", "gradient/", "running/", "evalLogits", "trials/", "sgd/", "nesterov/"):
        worst = [max(f for q, f in figures.items() if q.startswith(group)) for figures in table.values()]
        print("  %-11s largest distance by variant: %s" % (group, " ".join("%.1e" % f for f in worst)))
    for key in ("trials/losses", "sgd/losses", "nesterov/losses"):
        print("  %-15s %s" % (key, want[key].round(4)))


def search(name, seeds=1500, least=8):
    """Prints the seeds of largest training margin among those whose margin on batch 0, which rules all gradients, is at least `least`."""
    torch.set_num_threads(1)
    ranked = []
    for seed in range(seeds):
        case = CASES[name]._replace(seed=seed)
        first = first_margin(case)
        if first >= least:
            ranked.append((training_margin(case), first, seed))
    print(name, *("seed %d: %.1f, %.1f" % row[::-1] for row in sorted(ranked, reverse=True)[:4]), sep="   ", flush=True)


def main(names):
    print("torch %s, torchvision %s, numpy %s" % (torch.__version__, torchvision.__version__, np.__version__))
    wanted = [name for name in names if name != "--search"] or list(CASES)
    unknown = [name for name in wanted if name not in CASES]
    if unknown:
        raise SystemExit("make_goldens: no case %s; cases are %s" % (", ".join(unknown), ", ".join(CASES)))
    for name in wanted:
        (search if "--search" in names else make)(name)


if __name__ == "__main__":
    main(sys.argv[1:])
