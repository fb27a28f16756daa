"""Two things that are alike, for the hierarchical Gaussian: movements that drift together, and electrodes that could
change places.

Movements: when an armband sits elsewhere, movements that look alike move alike. Class means of a session are then not
independent draws: between classes c and d their covariance is K(c, d) B, K a kernel of how far c and d lie apart. It is
the intrinsic model of coregionalisation of Gaussian processes (Bonilla, Chai, Williams 2008, multi-task GP prediction),
with tasks of which one sees noisy means.

Electrodes: how a feature varies from repetition to repetition hardly depends on which electrode it is of. A covariance
averaged over all permutations of the electrodes has few free numbers, is positive whenever the covariance is, and is
what one of few repetitions is shrunk towards.
"""

from collections.abc import Sequence

import numpy as np

TOGETHER = 0.8  # how far classes at no distance move together
WIDTH = 0.5  # of the kernel, in median squared distances between classes


def kernel(means: np.ndarray) -> np.ndarray:
    """How classes with these means (G, D) move together (G, G): 1 on the diagonal, less the farther they are apart."""
    squares = ((means[:, None] - means) ** 2).sum(axis=-1)
    others = squares[np.triu_indices(len(means), 1)]
    if not len(others) or not (middle := float(np.median(others))) > 0:
        return np.eye(len(means))
    return (1 - TOGETHER) * np.eye(len(means)) + TOGETHER * np.exp(-squares / (WIDTH * middle))


def posterior(apart: np.ndarray, counts: np.ndarray, values: np.ndarray,
              kin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class means of a session from noisy ones, in directions of which each is independent of the others.

    Args:
        apart: means seen, less those of earlier sessions (G, D); where a count is 0 they count for nothing.
        counts: looks at each class (G,); the mean of n looks has variance 1 / n.
        values: variance between sessions (D,), times `kin` (G, G) between classes.

    Returns:
        How far means lie from those of earlier sessions (G, D), and the variance left, mean over classes (D,).
    """
    looks = np.sqrt(counts)[:, None]
    eigen, vectors = np.linalg.eigh(looks * kin * looks.T)
    shrink, across = 1 / (1 + np.maximum(eigen, 0)[:, None] * values), (kin * looks.T) @ vectors  # (G, D), (G, G)
    moved = values * (across @ (shrink * (vectors.T @ (looks * apart))))
    left = np.diag(kin)[:, None] * values - values**2 * (across**2 @ shrink)
    return moved, np.maximum(left, 0).mean(axis=0)


def alike(kinds: Sequence[int], electrodes: Sequence[Sequence[int]]) -> np.ndarray:
    """Which entries of a covariance (D, D) the electrodes' permutations turn into each other: a number for each kind.

    Args:
        kinds: what each feature is (D,), such as log variance; the same number for all electrodes and pairs of them.
        electrodes: which one or two electrodes each is of.
    """
    count = 1 + max(max(one) for one in electrodes)
    of = np.array([np.isin(np.arange(count), one) for one in electrodes], int)
    kinds = np.asarray(kinds)
    return 3 * (kinds[:, None] * (1 + kinds.max()) + kinds) + of @ of.T


def evened(covariance: np.ndarray, share: float, which: np.ndarray) -> np.ndarray:
    """A covariance (D, D) of which a share is averaged over the electrodes."""
    return (1 - share) * covariance + share * exchangeable(covariance, which)


def exchangeable(covariance: np.ndarray, which: np.ndarray) -> np.ndarray:
    """A covariance (D, D) averaged over all permutations of the electrodes; `which` is as of `alike`."""
    _, index = np.unique(which, return_inverse=True)
    index = index.reshape(which.shape)
    sums = np.bincount(index.ravel(), covariance.ravel())
    return (sums / np.bincount(index.ravel()))[index]
