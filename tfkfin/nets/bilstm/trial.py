"""A compiled library against the same mathematics in NumPy: exit code 0 if it may be used.

    python -m tfkfin.nets.bilstm.trial LIBRARY

In a process of its own, because a library that is rubbish may crash the one that loads it.
"""

import sys
from pathlib import Path

import numpy as np

from tfkfin.nets.bilstm.native import Kernel

AGREE = 1e-4


def expected(x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """Final states (N, 2 units) of one bidirectional layer for x (N, T, D); Keras's order of gates: i, f, c, o."""
    ends = []
    for way in (0, 1):
        inner, own, bias = weights[3 * way : 3 * way + 3]
        h = c = np.zeros((len(x), len(own)))
        for step in range(x.shape[1]):
            at = x[:, step if way == 0 else x.shape[1] - 1 - step]
            i, f, g, o = np.split(at @ inner + h @ own + bias, 4, axis=1)
            c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
            h = np.tanh(c) / (1 + np.exp(-o))
        ends.append(h)
    return np.concatenate(ends, axis=1)


def fault(kernel: Kernel) -> str:
    """What is wrong with a kernel, or nothing."""
    rng = np.random.default_rng(0)
    x, units = rng.standard_normal((19, 7, 3)).astype(np.float32), 5
    shapes = [(3, 4 * units), (units, 4 * units), (4 * units,)] * 2
    weights = [0.5 * rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    kept, token = kernel.forward(x, weights, "both", True)
    found, _ = kernel.forward(x, weights, "both", False)
    true = expected(x.astype(float), [w.astype(float) for w in weights])
    if not (np.abs(found - true).max() < AGREE and np.abs(kept - true).max() < AGREE):
        return f"it is off by {np.abs(found - true).max():g}"
    dx = kernel.backward(x, weights, "both", np.ones_like(kept), token)[0]
    direction = rng.standard_normal(x.shape)
    apart = [expected(x + step * direction, [w.astype(float) for w in weights]).sum() for step in (1e-4, -1e-4)]
    slope = (apart[0] - apart[1]) / 2e-4
    if not abs(float((dx * direction).sum()) - slope) < 1e-2 * max(1.0, abs(slope)):
        return f"its gradient is {float((dx * direction).sum()):g} where the slope is {slope:g}"
    return ""


if __name__ == "__main__":
    sys.exit(fault(Kernel(Path(sys.argv[1]))) or 0)
