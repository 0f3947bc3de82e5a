"""Trainings whose rate a rule sets, in float64 with autograd: /usr/bin/python3 test/goldens/make_rules.py

Writes rules.json: for every case the network, the rule's options as forkstep has them, the optimizer's, and what 12 steps give: losses, rates,
projections of the final weights, test loss at the point of evaluation. The rules are written here from the papers, one function each, without the code
under test; momentum, weight decay and the steps themselves are torch.optim.SGD's. Weights and images are generated (common.py, generate.ts).
"""
import json
import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

from common import generated_tensor, random_bits, uniform

SEED, TRAIN, TEST, SIZE, CLASSES, BATCH, STEPS = 5, 22, 10, 8, 5, 4, 12
PER_EPOCH = TRAIN // BATCH
MEAN, STD = (0.5, 0.45, 0.4), (0.25, 0.3, 0.35)
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)


def images(part, n):
    raw = (random_bits(part + ".images", SEED, n * 3 * SIZE * SIZE) >> np.uint32(24)).astype(np.float64).reshape(n, 3, SIZE, SIZE)
    x = (torch.from_numpy(raw) / 255 - torch.tensor(MEAN).reshape(1, 3, 1, 1)) / torch.tensor(STD).reshape(1, 3, 1, 1)
    return x, torch.from_numpy((random_bits(part + ".labels", SEED, n) % np.uint32(CLASSES)).astype(np.int64))


class Mlp(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = torch.nn.Linear(3 * SIZE * SIZE, 12)
        self.fc2 = torch.nn.Linear(12, CLASSES)

    def forward(self, x):  # forkstep flattens channels last
        return self.fc2(F.relu(self.fc1(x.permute(0, 2, 3, 1).flatten(1))))


class ConvNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(4)
        self.conv2 = torch.nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(8)
        self.fc = torch.nn.Linear(8, CLASSES)

    def forward(self, x):
        x = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return self.fc(x.mean((2, 3)))


class Run:
    """One training: what a rule may look at, and the step."""

    def __init__(self, net, optimizer):
        self.model = {"mlp": Mlp, "conv": ConvNet}[net]()
        state = {k: torch.from_numpy(np.array(generated_tensor(k, tuple(v.shape), SEED))) for k, v in self.model.state_dict().items()}
        self.model.load_state_dict({k: v.to(torch.float64) if v.is_floating_point() else v for k, v in state.items()})
        self.params = list(self.model.parameters())
        self.opt = torch.optim.SGD(self.params, lr=1.0, **optimizer)
        self.o = {"momentum": 0, "weight_decay": 0, "nesterov": False, "dampening": 0, **optimizer}
        self.x, self.y = images("train", TRAIN)
        self.test = images("test", TEST)
        self.t = 0

    def flat(self, tensors):
        return torch.cat([t.detach().reshape(-1) for t in tensors])

    def weights(self):
        return self.flat(self.params)

    def set_weights(self, flat):
        with torch.no_grad():
            at = 0
            for p in self.params:
                p.copy_(flat[at:at + p.numel()].reshape(p.shape))
                at += p.numel()

    def batch(self):
        at = self.t % PER_EPOCH * BATCH
        return self.x[at:at + BATCH], self.y[at:at + BATCH]

    def backward(self):
        x, y = self.batch()
        self.opt.zero_grad()
        loss = F.cross_entropy(self.model(x), y)
        loss.backward()
        self.loss = loss.item()
        self.g = self.flat([p.grad for p in self.params])
        return self.loss

    def decayed(self):
        return self.g + self.o["weight_decay"] * self.weights()

    def direction(self):
        """What the optimizer will step along, from its buffers as they are."""
        g, mu = self.decayed(), self.o["momentum"]
        if mu == 0:
            return g
        if self.t == 0:
            buf = g
        else:
            buf = mu * self.flat([self.opt.state[p]["momentum_buffer"] for p in self.params]) + (1 - self.o["dampening"]) * g
        return g + mu * buf if self.o["nesterov"] else buf

    def phi(self, rate, d):
        """Loss of the batch at the weights less rate times d; running statistics stay."""
        before = self.weights()
        kept = {k: v.clone() for k, v in self.model.state_dict().items() if "running" in k or "tracked" in k}
        self.set_weights(before - rate * d)
        with torch.no_grad():
            x, y = self.batch()
            loss = F.cross_entropy(self.model(x), y).item()
        self.set_weights(before)
        self.model.load_state_dict(kept, strict=False)
        return loss

    def step(self, rate):
        before, d = self.weights(), self.direction()
        self.opt.param_groups[0]["lr"] = rate
        self.opt.step()
        assert torch.allclose(self.weights(), before - rate * d, rtol=1e-10, atol=1e-12)
        self.d_before = d
        self.t += 1

    def evaluate(self):
        self.model.eval()
        with torch.no_grad():
            loss = F.cross_entropy(self.model(self.test[0]), self.test[1]).item()
        self.model.train()
        return loss


def sps(run, c=0.5, gamma=2.0, initLr=1.0, maxLr=None, fStar=0.0, eps=1e-8):
    bound = initLr
    while True:
        loss = run.backward()
        rate = (loss - fStar) / (c * run.g.dot(run.g).item() + eps)
        if gamma is not None:
            rate = min(rate, gamma ** (1 / PER_EPOCH) * bound)
        if maxLr is not None:
            rate = min(rate, maxLr)
        if loss <= fStar:
            rate = 0.0
        else:
            bound = rate
        run.step(rate)
        yield rate


def aliG(run, maxLr=0.1, eps=1e-5):
    while True:
        loss = run.backward()
        rate = min(loss / (run.g.dot(run.g).item() + eps), maxLr)
        run.step(rate)
        yield rate


def hypergradient(run, lr, hypergradLr=1e-6, minLr=-math.inf, maxLr=math.inf):
    while True:
        run.backward()
        if run.t > 0:
            lr += hypergradLr * run.decayed().dot(run.d_before).item()
        lr = min(max(lr, minLr), maxLr)
        run.step(lr)
        yield lr


def dog(run, repsRel=None, eps=1e-8, gamma=8.0, average=True):
    start = run.weights()
    batch_norms = any("running" in k for k in run.model.state_dict())
    reach = (repsRel or (1e-4 if batch_norms else 1e-6)) * (1 + start.norm().item())
    squares = eps
    mean = {k: v.clone() for k, v in run.model.state_dict().items()}
    while True:
        run.backward()
        if run.t > 0:
            reach = max(reach, (run.weights() - start).norm().item())
        squares += run.decayed().dot(run.decayed()).item()
        rate = reach / math.sqrt(squares)
        run.step(rate)
        w = (gamma + 1) / (gamma + run.t)
        for k, v in run.model.state_dict().items():
            mean[k] = (1 - w) * mean[k] + w * v if v.is_floating_point() else v.clone()
        run.at_end = (lambda: run.model.load_state_dict(mean)) if average else None
        yield rate


def gather(run):
    """Running statistics anew, at the weights as they are: means over the batches of an epoch."""
    for module in run.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        for i in range(PER_EPOCH):
            run.model(run.x[i * BATCH:(i + 1) * BATCH])


def scheduleFree(run, lr=1.0, beta=0.9, warmup=0, r=0.0, weightLrPower=2.0):
    z, x, total = run.weights(), run.weights(), 0.0
    while True:
        run.backward()
        rate = lr * min(1.0, (run.t + 1) / warmup) if warmup else lr
        z = z - rate * run.decayed()
        weight = (run.t + 1) ** r * rate ** weightLrPower
        total += weight
        x = x + weight / total * (z - x)
        run.set_weights((1 - beta) * z + beta * x)
        run.t += 1
        run.at_end = lambda: (run.set_weights(x), gather(run))
        yield rate


def slsArmijo(run, initLr=1.0, c=0.1, beta=0.9, trials=10, reset="grow", gamma=2.0, maxLr=10.0, fallbackLr=1e-6):
    lr = initLr
    run.nearest = math.inf
    while True:
        loss, d = run.backward(), run.direction()
        slope = run.g.dot(d).item()
        start = {"grow": min(lr * gamma ** (1 / PER_EPOCH), maxLr), "keep": lr, "init": initLr}[reset]
        rate = fallbackLr
        if slope > 0:
            lr = max(start * beta ** trials, fallbackLr)
            for i in range(trials):
                eta = start * beta ** i
                surplus = run.phi(eta, d) - (loss - c * eta * slope)
                run.nearest = min(run.nearest, abs(surplus))
                if surplus <= 0:
                    rate = lr = eta
                    break
        run.step(rate)
        yield rate


def pal(run, measuringStep=1.0, maxStep=3.16, updateFactor=1 / 0.6):
    mu = measuringStep
    while True:
        loss, d = run.backward(), run.direction()
        norm = d.norm().item()
        b = -run.g.dot(d).item() / norm
        a = (run.phi(mu / norm, d) - loss - b * mu) / mu ** 2
        s = 0.0 if b >= 0 else -b / (2 * a) * updateFactor if a > 0 else mu
        s = min(s, math.inf if maxStep is None else maxStep)
        run.step(s / norm)
        yield s / norm


def cdat(run, sigma=2.0, beta=0.9, eps=1e-8, span=0.02, maxLr=None):
    top = bottom = 0.0
    while True:
        loss, d = run.backward(), run.direction()
        slope = run.g.dot(d).item()
        h = span * loss / abs(slope)
        curvature = (run.phi(h, d) - 2 * loss + run.phi(-h, d)) / h ** 2
        top = beta * top + (1 - beta) * max(slope, 0.0)
        bottom = beta * bottom + (1 - beta) * (abs(curvature) + eps)
        rate = sigma * top / bottom
        rate = rate if maxLr is None else min(rate, maxLr)
        run.step(rate)
        yield rate


RULES = {f.__name__: f for f in (sps, aliG, hypergradient, dog, scheduleFree, slsArmijo, pal, cdat)}
MOMENTUM = {"momentum": 0.9, "weight_decay": 0.02}
NESTEROV = {"momentum": 0.9, "weight_decay": 0.02, "nesterov": True}
DAMPED = {"momentum": 0.8, "dampening": 0.4}
DECAY = {"weight_decay": 0.05}
CASES = [
    ("mlp", "sps", {}, {}), ("mlp", "sps", {"c": 5, "gamma": None, "maxLr": 0.03, "fStar": 1.2}, MOMENTUM), ("conv", "sps", {"c": 2}, {}),
    ("mlp", "aliG", {}, {"momentum": 0.9, "nesterov": True}), ("mlp", "aliG", {"maxLr": 5}, DECAY), ("conv", "aliG", {}, {}),
    ("mlp", "hypergradient", {"lr": 0.01, "hypergradLr": 1e-4}, {}), ("mlp", "hypergradient", {"lr": 0.01, "hypergradLr": 1e-4}, DECAY),
    ("mlp", "hypergradient", {"lr": 0.01, "hypergradLr": 1e-4}, MOMENTUM), ("mlp", "hypergradient", {"lr": 0.01, "hypergradLr": 1e-4}, NESTEROV),
    ("mlp", "hypergradient", {"lr": 0.01, "hypergradLr": 1e-3, "minLr": 0.009, "maxLr": 0.012}, DAMPED),
    ("conv", "hypergradient", {"lr": 0.05, "hypergradLr": 1e-2}, MOMENTUM),
    ("mlp", "dog", {}, {}), ("mlp", "dog", {"repsRel": 1e-2, "average": False}, DECAY), ("mlp", "dog", {"repsRel": 0.1}, {}),
    ("conv", "dog", {}, {}), ("conv", "dog", {"repsRel": 0.05, "gamma": 2}, {}),
    ("mlp", "scheduleFree", {"lr": 0.05}, {}), ("mlp", "scheduleFree", {"lr": 0.05, "beta": 0.7, "warmup": 5, "r": 1}, DECAY),
    ("conv", "scheduleFree", {"lr": 0.5, "weightLrPower": 1.5, "warmup": 4}, {}),
    ("mlp", "slsArmijo", {}, {}), ("mlp", "slsArmijo", {"trials": 6, "beta": 0.5, "c": 0.5, "reset": "init"}, MOMENTUM),
    ("mlp", "slsArmijo", {"trials": 2, "reset": "keep"}, NESTEROV), ("mlp", "slsArmijo", {"beta": 0.6, "gamma": 32, "maxLr": 2}, DAMPED),
    ("conv", "slsArmijo", {"beta": 0.7}, DECAY),
    ("mlp", "pal", {}, {}), ("mlp", "pal", {"measuringStep": 0.1, "maxStep": 0.3}, NESTEROV), ("mlp", "pal", {"measuringStep": 0.3, "maxStep": None}, DECAY),
    ("conv", "pal", {"measuringStep": 0.1}, {"momentum": 0.4}),
    ("mlp", "cdat", {}, {}), ("mlp", "cdat", {"sigma": 0.3, "beta": 0, "maxLr": 0.06, "span": 0.1}, MOMENTUM),
    ("conv", "cdat", {"sigma": 0.5, "beta": 0.5, "span": 0.1, "maxLr": 1}, DECAY),
]


def train(net, name, options, optimizer):
    run = Run(net, optimizer)
    run.at_end = None
    rates, losses = [], []
    for rate in RULES[name](run, **options):
        rates.append(rate)
        losses.append(run.loss)
        if len(rates) == STEPS:
            break
    if run.at_end:
        run.at_end()
    names = [k for k, _ in run.model.named_parameters()]
    projections = [float(p.detach().reshape(-1) @ torch.from_numpy(uniform("projection." + k, SEED, p.numel()))) for k, p in zip(names, run.params)]
    case = {"net": net, "rule": name, "options": options, "optimizer": optimizer, "losses": losses, "rates": rates}
    case.update({"projections": dict(zip(names, projections)), "testLoss": run.evaluate()})
    if hasattr(run, "nearest"):
        # How near a decision was: rounding must not turn one.
        case["nearest"] = run.nearest
    return case


if __name__ == "__main__":
    cases = [train(*case) for case in CASES]
    for case in cases:
        print(case["net"], case["rule"], case["options"], case["optimizer"], "%.4f -> %.4f" % (case["losses"][0], case["losses"][-1]),
              ["%.3g" % r for r in case["rates"]], case.get("nearest", ""))
    setting = {"seed": SEED, "train": TRAIN, "test": TEST, "size": SIZE, "classes": CLASSES, "batchSize": BATCH, "steps": STEPS, "mean": MEAN, "std": STD}
    out = {"torch": torch.__version__, "setting": setting, "cases": cases}
    pathlib.Path(__file__).with_name("rules.json").write_text(json.dumps(out, separators=(",", ":")).replace('{"net"', '\n{"net"') + "\n")
