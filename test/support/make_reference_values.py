"""Makes referenceValues.json: inputs, outputs and gradients of PyTorch in float64, which torch.test.ts holds the references against.

Run with Debian's python3-torch (1.13):  python3 test/support/make_reference_values.py
Inputs are rounded to 2 decimals. Images are stored NHWC, convolution weights [kH][kW][Cin][Cout], linear weights [K][M].
"""
import json
import pathlib

import torch
import torch.nn.functional as F

SEED = 20240
torch.manual_seed(SEED)
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)


def rand(*shape):
    return (torch.randn(*shape) * 100).round() / 100


def leaf(t):
    return t.clone().requires_grad_(True)


def nhwc(t):
    return t.permute(0, 2, 3, 1)


def hwio(t):
    return t.permute(2, 3, 1, 0)


def keep(t):
    t = t.detach().contiguous()
    return {'shape': list(t.shape), 'data': t.flatten().tolist()}


def conv2d_case(kernel, stride, padding, size, cin, cout):
    x = leaf(rand(2, cin, *size))
    w = leaf(rand(cout, cin, kernel, kernel))
    bias = leaf(rand(cout))
    y = F.conv2d(x, w, bias, stride=stride, padding=padding)
    dy = rand(*y.shape)
    y.backward(dy)
    return {
        'attrs': {'stride': stride, 'padding': padding}, 'x': keep(nhwc(x)), 'w': keep(hwio(w)), 'bias': keep(bias), 'dy': keep(nhwc(dy)),
        'y': keep(nhwc(y)), 'dx': keep(nhwc(x.grad)), 'dWeight': keep(hwio(w.grad)), 'dBias': keep(bias.grad),
    }


def batch_norm_case(training):
    x, weight, bias = leaf(rand(2, 3, 3, 2) + 1), leaf(rand(3)), leaf(rand(3))
    mean, var = rand(3), rand(3).abs() + 0.5
    before = {'runningMean': keep(mean), 'runningVar': keep(var)}
    y = F.batch_norm(x, mean, var, weight, bias, training=training, momentum=0.1, eps=1e-5)
    dy = rand(*y.shape)
    y.backward(dy)
    return {
        'eps': 1e-5, 'x': keep(nhwc(x)), 'weight': keep(weight), 'bias': keep(bias), **before, 'dy': keep(nhwc(dy)), 'y': keep(nhwc(y)),
        'nextRunningMean': keep(mean), 'nextRunningVar': keep(var), 'mean': keep(x.mean((0, 2, 3))),
        'var': keep(x.var((0, 2, 3), unbiased=False)),
        'dx': keep(nhwc(x.grad)), 'dWeight': keep(weight.grad), 'dBias': keep(bias.grad),
    }


def max_pool_case(x, kernel, stride, padding):
    x = leaf(x)
    y = F.max_pool2d(x, kernel, stride, padding)
    dy = rand(*y.shape)
    y.backward(dy)
    return {
        'attrs': {'kernelSize': kernel, 'stride': stride, 'padding': padding},
        'x': keep(nhwc(x)), 'dy': keep(nhwc(dy)), 'y': keep(nhwc(y)), 'dx': keep(nhwc(x.grad)),
    }


def global_avg_pool_case():
    x = leaf(rand(2, 3, 3, 5))
    y = F.adaptive_avg_pool2d(x, 1).flatten(1)
    dy = rand(*y.shape)
    y.backward(dy)
    return {'x': keep(nhwc(x)), 'dy': keep(dy), 'y': keep(y), 'dx': keep(nhwc(x.grad))}


def relu_case():
    x = leaf(torch.tensor([-1.5, -0.0, 0.0, 0.25, 3.0]))
    y = torch.relu(x)
    dy = rand(5)
    y.backward(dy)
    return {'x': keep(x), 'dy': keep(dy), 'y': keep(y), 'dx': keep(x.grad)}


def linear_case():
    x, w, b = leaf(rand(3, 5)), leaf(rand(4, 5)), leaf(rand(4))
    y = F.linear(x, w, b)
    dy = rand(*y.shape)
    y.backward(dy)
    return {
        'x': keep(x), 'w': keep(w.T), 'b': keep(b), 'dy': keep(dy), 'y': keep(y),
        'dx': keep(x.grad), 'dWeight': keep(w.grad.T), 'dBias': keep(b.grad),
    }


def cross_entropy_case(smoothing, scale):
    logits, labels = rand(4, 5) * scale, torch.tensor([0, 4, 2, 2])
    each, mean = leaf(logits), leaf(logits)
    losses = F.cross_entropy(each, labels, reduction='none', label_smoothing=smoothing)
    d_losses = rand(4)
    losses.backward(d_losses)
    loss = F.cross_entropy(mean, labels, label_smoothing=smoothing)
    loss.backward()
    return {
        'labelSmoothing': smoothing, 'logits': keep(logits), 'labels': labels.tolist(), 'dLosses': keep(d_losses),
        'losses': keep(losses), 'mean': keep(loss), 'dLogits': keep(each.grad), 'dLogitsOfMean': keep(mean.grad),
    }


def sgd_case(**options):
    w = torch.nn.Parameter(rand(4))
    optimizer = torch.optim.SGD([w], **options)
    case = {'w': keep(w), 'gradients': [], 'weights': [], 'attrs': {
        'lr': options['lr'], 'momentum': options.get('momentum', 0), 'dampening': options.get('dampening', 0),
        'weightDecay': options.get('weight_decay', 0), 'nesterov': options.get('nesterov', False)}}
    for _ in range(3):
        w.grad = rand(4)
        case['gradients'].append(keep(w.grad))
        optimizer.step()
        case['weights'].append(keep(w))
    return case


def assemble_batch_case():
    images = torch.randint(0, 256, (3, 3, 2, 4), dtype=torch.uint8)
    images[1, 0, 0, 0], images[1, 2, 1, 3] = 0, 255
    indices = [2, 1, 2]
    mean, std = [0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616]
    y = (images[indices].double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    return {
        'images': images.flatten().tolist(), 'size': {'C': 3, 'H': 2, 'W': 4}, 'indices': indices, 'mean': mean, 'std': std,
        'y': keep(nhwc(y)),
    }


tied = torch.randint(0, 3, (2, 2, 5, 6)).double()
values = {
    'seed': SEED,
    'torch': torch.__version__,
    'conv2d': [
        conv2d_case(3, 1, 1, (4, 3), 2, 3),
        conv2d_case(3, 2, 1, (5, 6), 3, 2),
        conv2d_case(1, 2, 0, (4, 5), 3, 2),
        conv2d_case(7, 2, 3, (8, 7), 1, 2),
    ],
    'batchNormTrain': batch_norm_case(True),
    'batchNormEval': batch_norm_case(False),
    'maxPool2d': [
        max_pool_case(tied, 3, 2, 1),
        max_pool_case(torch.zeros(1, 1, 4, 4), 3, 1, 1),
        max_pool_case(rand(1, 3, 7, 5), 2, 2, 0),
    ],
    'globalAvgPool': global_avg_pool_case(),
    'relu': relu_case(),
    'linear': linear_case(),
    'crossEntropy': [cross_entropy_case(0.0, 1), cross_entropy_case(0.1, 1), cross_entropy_case(0.1, 400)],
    'sgd': [
        sgd_case(lr=0.1),
        sgd_case(lr=0.1, weight_decay=0.05),
        sgd_case(lr=0.1, momentum=0.9),
        sgd_case(lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.05),
        sgd_case(lr=0.1, momentum=0.9, weight_decay=0.05, nesterov=True),
    ],
    'assembleBatch': assemble_batch_case(),
}


def lines(value, indent=''):
    """JSON with one line a tensor."""
    deeper = indent + ' '
    if isinstance(value, dict) and set(value) != {'shape', 'data'}:
        return '{\n' + ',\n'.join(f'{deeper}"{key}": {lines(v, deeper)}' for key, v in value.items()) + f'\n{indent}}}'
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return '[\n' + ',\n'.join(deeper + lines(v, deeper) for v in value) + f'\n{indent}]'
    return json.dumps(value)


path = pathlib.Path(__file__).with_name('referenceValues.json')
path.write_text(lines(values) + '\n')
print(f'{path.name}: {path.stat().st_size} bytes')
