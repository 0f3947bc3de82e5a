"""Learning rates of PyTorch's schedulers, moved by step() once an update: /usr/bin/python3 test/goldens/make_schedules.py

Writes schedules.json: for every case the schedule's name and options as forkstep has them (lengths in steps) and the rate in force during
updates 0 … n - 1. PyTorch has no inverse square root and no warm-up-stable-decay: those are LambdaLR of the formula.
"""
import json
import math
import pathlib

import torch
from torch.optim import lr_scheduler as S


def optimizer(lr):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(make, lr, n, metrics=None):
    """make(optimizer) -> scheduler; the rate before each of n updates."""
    opt = optimizer(lr)
    scheduler = make(opt)
    out = []
    for i in range(n):
        out.append(opt.param_groups[0]["lr"])
        opt.step()
        if i == n - 1:
            break
        scheduler.step(*([] if metrics is None else [metrics[i]]))
    return out


CLASSES = {
    "constantLr": S.ConstantLR, "linearLr": S.LinearLR, "cosineAnnealingLr": S.CosineAnnealingLR, "stepLr": S.StepLR,
    "cosineAnnealingWarmRestarts": S.CosineAnnealingWarmRestarts, "multiStepLr": S.MultiStepLR, "exponentialLr": S.ExponentialLR,
    "polynomialLr": S.PolynomialLR, "cyclicLr": S.CyclicLR, "oneCycleLr": S.OneCycleLR,
}


def snake(name):
    special = {"tMax": "T_max", "t0": "T_0", "tMult": "T_mult", "lrLambda": "lr_lambda"}
    return special.get(name) or "".join("_" + c.lower() if c.isupper() else c for c in name)


def child(name, options):
    extra = {"cycle_momentum": False} if name in ("cyclicLr", "oneCycleLr") else {}
    given = {snake(k): v for k, v in options.items() if k != "lr"}
    return lambda opt: CLASSES[name](opt, **given, **extra)


cases = []


def case(name, n, **options):
    lr = options.get("lr", 0.1)
    cases.append({"name": name, "options": options, "lrs": rates(child(name, options), lr, n)})


case("constantLr", 12, lr=0.1)
case("constantLr", 9, lr=0.3, factor=0.25, totalIters=7)
case("linearLr", 12, lr=0.1)
case("linearLr", 30, lr=0.005, startFactor=1.0, endFactor=0.0, totalIters=25)
case("linearLr", 12, lr=0.1, startFactor=0.01, endFactor=0.75, totalIters=10)
case("cosineAnnealingLr", 60, lr=0.1, tMax=50)
case("cosineAnnealingLr", 40, lr=0.1, tMax=13, etaMin=0.003)
case("cosineAnnealingLr", 5, lr=0.1, tMax=1, etaMin=0.01)
case("cosineAnnealingWarmRestarts", 40, lr=0.1, t0=9)
case("cosineAnnealingWarmRestarts", 75, lr=0.1, t0=5, tMult=2, etaMin=0.001)
case("cosineAnnealingWarmRestarts", 45, lr=0.1, t0=3, tMult=3)
case("stepLr", 30, lr=0.1, stepSize=7)
case("stepLr", 10, lr=0.1, stepSize=1, gamma=0.9)
case("multiStepLr", 24, lr=0.1, milestones=[5, 12, 20])
case("multiStepLr", 14, lr=0.1, milestones=[9, 4, 4], gamma=0.5)
case("exponentialLr", 40, lr=0.1, gamma=0.87)
case("polynomialLr", 9, lr=0.1)
case("polynomialLr", 26, lr=0.1, totalIters=20, power=2.5)
case("cyclicLr", 40, baseLr=0.01, maxLr=0.1, stepSizeUp=6)
case("cyclicLr", 40, baseLr=0.01, maxLr=0.1, stepSizeUp=4, stepSizeDown=9, mode="triangular2")
case("cyclicLr", 40, baseLr=0.0, maxLr=0.1, stepSizeUp=7, stepSizeDown=3, mode="exp_range", gamma=0.97)
case("oneCycleLr", 40, maxLr=0.1, totalSteps=40)
case("oneCycleLr", 37, maxLr=0.1, totalSteps=37, pctStart=0.4, annealStrategy="linear", divFactor=10.0, finalDivFactor=100.0)
case("oneCycleLr", 41, maxLr=0.5, totalSteps=41, threePhase=True)
case("oneCycleLr", 30, maxLr=0.5, totalSteps=30, pctStart=0.25, annealStrategy="linear", threePhase=True)

# --- compositions: children by name and options ------------------------------------------------------------------------------------


def composed(name, children, n, milestones=None, **options):
    lr = children[0][1]["lr"]

    def make(opt):
        made = [child(*one)(opt) for one in children]
        return S.ChainedScheduler(made) if name == "chained" else S.SequentialLR(opt, made, milestones)

    out = {"name": name, "children": [{"name": k, "options": o} for k, o in children], "options": options}
    if name == "sequential":
        out["milestones"] = milestones
    cases.append({**out, "lrs": rates(make, lr, n)})


def a(**options):
    return {"lr": 0.1, **options}


composed("sequential", [("linearLr", a(startFactor=0.1, totalIters=5)), ("cosineAnnealingLr", a(tMax=20, etaMin=0.001))], 25, [5])
composed("sequential", [("constantLr", a(factor=0.1, totalIters=30)), ("exponentialLr", a(gamma=0.9)), ("stepLr", a(stepSize=4))], 40, [6, 17])
composed("chained", [("constantLr", a(factor=0.1, totalIters=4)), ("exponentialLr", a(gamma=0.9))], 20)
composed("chained", [("linearLr", a(totalIters=6)), ("multiStepLr", a(milestones=[8, 15])), ("polynomialLr", a(totalIters=30))], 25)
composed("chained", [("linearLr", a(totalIters=6)), ("cosineAnnealingLr", a(tMax=30))], 30)

# --- formulas ----------------------------------------------------------------------------------------------------------------------


def formula(name, factor, n, **options):
    cases.append({"name": name, "options": options, "lrs": rates(lambda opt: S.LambdaLR(opt, factor), options["lr"], n)})


def inverse_sqrt(warmup, timescale):
    return lambda step: step / warmup if step < warmup else 1.0 / math.sqrt((step + timescale - warmup) / timescale)


def stable(warmup, decay, total, kind, low):
    def factor(step):
        if step < warmup:
            part = step / max(1, warmup)
        elif step < total - decay:
            return 1.0
        elif step >= total:
            return low
        else:
            progress = (step - (total - decay)) / max(1, decay)
            shapes = {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress, "1-sqrt": 1 - math.sqrt(progress)}
            part = shapes[kind]
        return part * (1 - low) + low

    return factor


formula("inverseSqrt", inverse_sqrt(8, 8), 40, lr=0.1, warmupSteps=8)
formula("inverseSqrt", inverse_sqrt(5, 20), 40, lr=0.1, warmupSteps=5, timescale=20)
formula("inverseSqrt", lambda step: 1 / math.sqrt((step + 10) / 10), 12, lr=0.1, warmupSteps=0, timescale=10)
for kind, low in (("cosine", 0.0), ("linear", 0.1), ("1-sqrt", 0.05)):
    formula("warmupStableDecay", stable(5, 12, 30, kind, low), 33, lr=0.1, warmupSteps=5, decaySteps=12, totalSteps=30, decayType=kind, minLrRatio=low)
formula("lambdaLr", lambda step: 0.95 ** step, 20, lr=0.1)

# --- metrics -----------------------------------------------------------------------------------------------------------------------

falling = [1, 0.9, 0.85, 0.85, 0.86, 0.849, 0.8489, 0.9, 0.95, 0.8, 0.81, 0.82, 0.83, float("inf"), 0.85, 0.79, 0.79, 0.79, 0.79, 0.79]
rising = [0.1, 0.3, 0.2, 0.25, 0.3, 0.3001, 0.35, 0.34, 0.33, 0.36, 0.36, 0.36, 0.36, 0.36, 0.36, 0.36]


def plateau(metrics, **options):
    lr = options["lr"]
    given = {snake(k): v for k, v in options.items() if k != "lr"}
    lrs = rates(lambda opt: S.ReduceLROnPlateau(opt, **given), lr, len(metrics), metrics)
    cases.append({"name": "reduceLROnPlateau", "options": options, "metrics": [m if math.isfinite(m) else "Infinity" for m in metrics], "lrs": lrs})


plateau(falling, lr=0.1, patience=1)
plateau([1.0] * 30, lr=0.1)
plateau(falling, lr=0.1, patience=0, factor=0.5, threshold=0.01, cooldown=2, minLr=0.02)
plateau(falling, lr=0.1, patience=1, threshold=0.05, thresholdMode="abs")
plateau(rising, lr=0.1, mode="max", patience=1, factor=0.3)
plateau(rising, lr=0.1, mode="max", patience=0, thresholdMode="abs", threshold=0.01, factor=0.2)
plateau([1.0] * 12, lr=1e-6, patience=0, eps=1e-8)
plateau([-1, -1.2, -1.19, -1.1, -1.3, -1.2, -1.2, -1.2], lr=0.1, patience=1)

out = pathlib.Path(__file__).with_name("schedules.json")
text = ",\n".join(json.dumps(one) for one in cases)
out.write_text(f'{{"torch": "{torch.__version__}", "cases": [\n{text}\n]}}\n')
print(f"{len(cases)} cases, {sum(len(one['lrs']) for one in cases)} rates")
