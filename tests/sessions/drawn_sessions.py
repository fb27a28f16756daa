"""Sessions drawn from the model of `tfkfin.sessions.prior`: what the tests of this folder share."""

import numpy as np

from tfkfin.sessions.prior import SessionPrior

D, G, EACH = 5, 3, 20  # features, classes, windows of a repetition


def session(seed, days=0.8, trials=0.4, repetitions=4):
    """Windows of one session in order of time: (x (N, D), labels, repetitions)."""
    rng, base = np.random.default_rng(seed), np.random.default_rng(0).normal(0, 2, (G, D))
    means, x = base + rng.normal(0, days, base.shape), []
    for _ in range(repetitions):
        for k in range(G):
            x.append(means[k] + rng.normal(0, trials, D) + rng.normal(size=(EACH, D)))
    return np.concatenate(x), np.tile(np.repeat(np.arange(1, G + 1), EACH), repetitions), np.repeat(
        np.arange(repetitions), G * EACH)


def joined(parts):
    """Sessions as the arguments of `SessionPrior.fit`."""
    x, labels, repetitions = (np.concatenate(column) for column in zip(*parts, strict=True))
    return x, labels, np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts]), repetitions


PRIOR, LATER = SessionPrior().fit(*joined([session(100 + s) for s in range(8)])), [session(500 + s) for s in range(12)]


def accuracy(probabilities, labels):
    return np.mean(PRIOR.classes[probabilities.argmax(axis=1)] == labels)
