"""What sessions taught a hierarchical Gaussian, as sums that another session is added to exactly: no window is kept."""

from dataclasses import dataclass, fields

import numpy as np

LEAST = 1e-9  # added to deviations, which divide


def shrunk(sample: np.ndarray, fourth: float, count: float) -> np.ndarray:
    """A covariance (D, D) shrunk towards a multiple of the identity by Ledoit and Wolf's rule (2004).

    Args:
        sample: mean of y y' over `count` rows y.
        fourth: sum of |y|^4 over them.
    """
    size = len(sample)
    mean, square = np.trace(sample) / size, (sample**2).sum()
    apart, noise = square - size * mean**2, fourth / count**2 - square / count
    share = min(max(noise, 0.0), apart) / apart if apart > 0 else 0.0
    found = (1 - share) * sample
    found[np.diag_indices(size)] += share * mean
    return found


@dataclass(frozen=True)
class Scatter:
    """Rows (N, D) about 0, as far as their covariance needs them.

    Attributes:
        count: N.
        squares: sum of y y' over rows y (D, D).
        fourth: sum of |y|^4.
    """

    count: float
    squares: np.ndarray
    fourth: float

    @classmethod
    def of(cls, rows: np.ndarray) -> "Scatter":
        """Of rows (N, D)."""
        return cls(len(rows), rows.T @ rows, float(((rows**2).sum(axis=1) ** 2).sum()))

    def __add__(self, other: "Scatter") -> "Scatter":
        return Scatter(self.count + other.count, self.squares + other.squares, self.fourth + other.fourth)

    def covariance(self) -> np.ndarray:
        """Shrunk; 0 of no rows."""
        return shrunk(self.squares / self.count, self.fourth, self.count) if self.count else self.squares


@dataclass(frozen=True)
class Taught:
    """Sessions of windows (N, D) of G classes, each z-scored by itself.

    Attributes:
        means: class means (S, G, D): the mean of a class's executions; nan where a session lacks it.
        centres, spreads: mean and deviation of each session's windows (S, D).
        executions: how many there were of all classes in all sessions.
        within: windows about the means of their executions.
        repeated: these means about those of their sessions, of classes that were done more than once.
    """

    means: np.ndarray
    centres: np.ndarray
    spreads: np.ndarray
    executions: float
    within: Scatter
    repeated: Scatter

    @classmethod
    def nothing(cls, classes: int, size: int) -> "Taught":
        """Of no session."""
        none = Scatter(0.0, np.zeros((size, size)), 0.0)
        return cls(np.empty((0, classes, size)), np.empty((0, size)), np.empty((0, size)), 0.0, none, none)

    def session(self, x: np.ndarray, classes: np.ndarray, repetitions: np.ndarray) -> "Taught":
        """And one more session: its windows (N, D), their class indices and repetitions (N,)."""
        centre, spread = x.mean(axis=0), x.std(axis=0) + LEAST
        z = (x - centre) / spread
        found, within, repeated = np.full(self.means.shape[1:], np.nan), [], [np.empty((0, x.shape[1]))]
        for k in np.unique(classes):
            each = [z[(classes == k) & (repetitions == one)] for one in np.unique(repetitions[classes == k])]
            within += [rows - rows.mean(axis=0) for rows in each]
            of_each = np.array([rows.mean(axis=0) for rows in each])
            found[k] = of_each.mean(axis=0)
            if len(each) > 1:
                repeated.append((of_each - found[k]) * np.sqrt(len(each) / (len(each) - 1)))
        return Taught(np.concatenate([self.means, found[None]]), np.concatenate([self.centres, centre[None]]),
                      np.concatenate([self.spreads, spread[None]]), self.executions + len(within),
                      self.within + Scatter.of(np.concatenate(within)),
                      self.repeated + Scatter.of(np.concatenate(repeated)))

    def arrays(self) -> dict[str, np.ndarray]:
        """By name, for files; `of_arrays` is the same again."""
        made = {}
        for field in fields(self):
            value = getattr(self, field.name)
            for name, part in (vars(value) if isinstance(value, Scatter) else {"": value}).items():
                made[f"{field.name}_{name}".strip("_")] = np.asarray(part, np.float64)
        return made

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray]) -> "Taught":
        """What `arrays` gave."""
        scatters = {name: Scatter(*(arrays[f"{name}_{part.name}"] for part in fields(Scatter)))
                    for name in ("within", "repeated")}
        return cls(**scatters, **{f.name: arrays[f.name] for f in fields(cls) if f.name not in scatters})
