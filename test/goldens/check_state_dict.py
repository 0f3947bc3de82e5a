#!/usr/bin/env python3
"""Passes state dicts between forkstep and torchvision.

    check_state_dict.py load FILE ...                         loads safetensors files into torchvision's ResNet18, strict=True
    check_state_dict.py make FILE STEM WIDTH CLASSES SEED     writes the state dict of a newly initialised one

Width, stem and classes of a file to load are read off its tensors; where they are torchvision's own (imagenet, 64) the model is
`torchvision.models.resnet18`. Prints one JSON object a model: {"parameters": count, "logits": eval mode in float64, on batch 0 of
seed 1 and shape [2, 3, 40, 40] as `generate.ts` makes it}.
"""
import json
import sys

import torch
import torchvision

from common import ScaledResNet18, generated_batch, read_safetensors, write_safetensors

IMAGES = (2, 3, 40, 40)
SEED = 1


def resnet18(stem, width, classes):
    if (stem, width) == ("imagenet", 64):
        return torchvision.models.resnet18(num_classes=classes)
    return ScaledResNet18(width, stem, classes)


def show(model):
    classes = model.fc.out_features
    images = torch.tensor(generated_batch(0, IMAGES, classes, SEED)[0], dtype=torch.float64)
    with torch.no_grad():
        logits = model.double().eval()(images)
    print(json.dumps({"parameters": sum(p.numel() for p in model.parameters()), "logits": logits.flatten().tolist()}), flush=True)


def load(path):
    state = {name: torch.tensor(array) for name, array in read_safetensors(path).items()}
    conv1, fc = state["conv1.weight"], state["fc.weight"]
    model = resnet18("imagenet" if conv1.shape[2] == 7 else "cifar", conv1.shape[0], fc.shape[0])
    model.load_state_dict(state, strict=True)
    for name, tensor in model.state_dict().items():
        if not torch.equal(tensor, state[name]):
            raise SystemExit("check_state_dict: %s changed while loading" % name)
    show(model)


def make(path, stem, width, classes, seed):
    torch.manual_seed(int(seed))
    model = resnet18(stem, int(width), int(classes))
    # write_safetensors keeps the order it is given, and I64 must come before F32 for the bytes to be aligned.
    state = sorted(model.state_dict().items(), key=lambda item: item[1].dtype != torch.int64)
    write_safetensors(path, {name: tensor.numpy() for name, tensor in state}, {"torch": torch.__version__})
    show(model)


if __name__ == "__main__":
    if sys.argv[1:2] == ["load"] and len(sys.argv) > 2:
        for file in sys.argv[2:]:
            load(file)
    elif sys.argv[1:2] == ["make"] and len(sys.argv) == 7:
        make(*sys.argv[2:])
    else:
        raise SystemExit(__doc__)
