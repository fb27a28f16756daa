"""Statistics of labelled windows: all that the prior and the posterior need of them. No window is kept.

Symbols, of one session with windows x_n (D,), n = 1..N, each of a class g = 1..G and of one of its repetitions r:

    c, d = mean and sd of x_n over the session      z = (x - c) / d     the session's z-score
    v_gr = mean of z over repetition r of class g   u_g = mean of v_gr over r

`Scatter` holds rows y about 0 as (count n, S = sum y y', q = sum |y|^4), which add up. Their covariance is shrunk
towards a multiple of the identity (Ledoit, Wolf 2004, doi:10.1016/S0047-259X(03)00096-4). With C = S / n, m = tr C / D:

    shrunk C = (1 - a) C + a m I,    a = min(b, e) / e,    e = |C|^2 - D m^2,    b = q / n^2 - |C|^2 / n

`SessionStatistics` holds many sessions, z-scored one by one, for the prior. `ClassMoments` holds one session that grows
window by window. Since c and d change with every window there, z cannot be formed before the end, and the sum q of
z-scored rows follows from raw moments about the class means m_g. With u = x - m_g and w = 1 / d^2 (elementwise):

    S = sum u u'    T = sum u^2 u'    Q = sum u^2 (u^2)'    ->    q = w' Q w

When a class mean moves by h, the moments about it change without its n windows (Pebay 2008, SAND2008-6212). With
s = diag(S), and * elementwise:

    S <- S + n h h'    T <- T - (s + n h^2) h' - 2 h * S
    Q <- Q + 4 h h' * S - R - R'   with   R = 2 T * h' - (s + n h^2 / 2) (h^2)'
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

# Names in files -> fields of `SessionStatistics`; a scatter's parts have its name before theirs.
FILES = {"means": "means", "centres": "centres", "spreads": "sds", "executions": "repetitions", "within": "within",
         "repeated": "repetition", "virtual_shifts": "virtual_shifts", "virtual": "virtual", "layout": "layout"}
EPSILON = 1e-9  # added to sds and weights, which divide: far below those of any feature that varies


def ledoit_wolf(sample: np.ndarray, fourth: float, count: float) -> np.ndarray:
    """A covariance (D, D) shrunk towards a multiple of the identity, as the module says.

    Args:
        sample: C, mean of y y' over `count` rows y.
        fourth: q, sum of |y|^4 over them.
    """
    size = len(sample)
    mean, square = np.trace(sample) / size, (sample**2).sum()
    apart, noise = square - size * mean**2, fourth / count**2 - square / count
    share = min(max(noise, 0.0), apart) / apart if apart > 0 else 0.0
    shrunk = (1 - share) * sample
    shrunk[np.diag_indices(size)] += share * mean
    return shrunk


def mean_of_sessions(means: np.ndarray) -> np.ndarray:
    """Mean over sessions of class means (S, G, D), nan where a session lacks a class -> (G, D), nan if all do."""
    with np.errstate(invalid="ignore"):
        return np.nansum(means, axis=0) / np.isfinite(means).sum(axis=0)


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
        return cls(len(rows), rows.T @ rows, float(((rows**2).sum(axis=1) ** 2).sum()))

    def __add__(self, other: "Scatter") -> "Scatter":
        return Scatter(self.count + other.count, self.squares + other.squares, self.fourth + other.fourth)

    def covariance(self) -> np.ndarray:
        """Shrunk (D, D); zeros without rows."""
        return ledoit_wolf(self.squares / self.count, self.fourth, self.count) if self.count else self.squares


@dataclass(frozen=True)
class SessionStatistics:
    """Sessions of windows (N, D) of G classes, each session z-scored by itself.

    Attributes:
        means: class means u (S, G, D); nan where a session lacks the class.
        centres, sds: c and d of each session (S, D).
        repetitions: how many repetitions there are, of all classes in all sessions.
        within: windows about their repetition's mean, z - v.
        repetition: repetition means about their session's class mean, (v - u) sqrt(R / (R - 1)), of classes with R > 1
            repetitions in the session.
        virtual_shifts: class means at all forces less those as recorded (V, G, D), of sessions with virtual forces.
        virtual: windows at all forces about their session's class mean at all forces.
        layout: which features electrodes exchange (D, 3), as of `prior.exchangeable`; (0, 3) if not known.
    """

    means: np.ndarray
    centres: np.ndarray
    sds: np.ndarray
    repetitions: float
    within: Scatter
    repetition: Scatter
    virtual_shifts: np.ndarray
    virtual: Scatter
    layout: np.ndarray

    @classmethod
    def empty(cls, classes: int, size: int, layout: np.ndarray | None = None) -> "SessionStatistics":
        """Of no session."""
        means, rows, none = np.empty((0, classes, size)), np.empty((0, size)), Scatter(0.0, np.zeros((size, size)), 0.0)
        return cls(means, rows, rows, 0.0, none, none, means, none, np.empty((0, 3)) if layout is None else layout)

    def add_session(self, x: np.ndarray, classes: np.ndarray, repetitions: np.ndarray,
                    virtual: Sequence[np.ndarray] = ()) -> "SessionStatistics":
        """And one more session.

        Args:
            x: its windows (N, D); classes: their class indices (N,); repetitions: of each (N,).
            virtual: the same windows at other forces, (N, D) each.
        """
        centre, sd = x.mean(axis=0), x.std(axis=0) + EPSILON
        z = (x - centre) / sd
        means, within, repetition = np.full(self.means.shape[1:], np.nan), [], [np.empty((0, x.shape[1]))]
        for k in np.unique(classes):
            each = [z[(classes == k) & (repetitions == r)] for r in np.unique(repetitions[classes == k])]
            within += [rows - rows.mean(axis=0) for rows in each]
            each_mean = np.array([rows.mean(axis=0) for rows in each])
            means[k] = each_mean.mean(axis=0)
            if len(each) > 1:
                repetition.append((each_mean - means[k]) * np.sqrt(len(each) / (len(each) - 1)))
        new = replace(self, means=np.concatenate([self.means, means[None]]), centres=np.vstack([self.centres, centre]),
                      sds=np.vstack([self.sds, sd]), repetitions=self.repetitions + len(within),
                      within=self.within + Scatter.of(np.concatenate(within)),
                      repetition=self.repetition + Scatter.of(np.concatenate(repetition)))
        return new._add_virtual((np.concatenate([x, *virtual]) - centre) / sd, classes) if len(virtual) else new

    def _add_virtual(self, z: np.ndarray, classes: np.ndarray) -> "SessionStatistics":
        """And the last session's windows at all forces, one force after another, z-scored as it is."""
        classes, means = np.tile(classes, len(z) // len(classes)), np.full(self.means.shape[1:], np.nan)
        for k in np.unique(classes):
            means[k] = z[classes == k].mean(axis=0)
        return replace(self, virtual=self.virtual + Scatter.of(z - means[classes]),
                       virtual_shifts=np.concatenate([self.virtual_shifts, (means - self.means[-1])[None]]))

    def arrays(self) -> dict[str, np.ndarray]:
        """By name, for files; what is empty is left out."""
        parts = {}
        for name, attribute in FILES.items():
            value = getattr(self, attribute)
            if isinstance(value, Scatter):
                parts |= {f"{name}_{end}": part for end, part in vars(value).items()} if value.count else {}
            elif np.size(value):
                parts[name] = value
        return {name: np.asarray(part, np.float64) for name, part in parts.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "SessionStatistics":
        """What `arrays` gave, or that of an earlier version, which had neither virtual forces nor a layout."""
        empty = cls.empty(*arrays["means"].shape[1:])
        parts = {attribute: arrays[name] for name, attribute in FILES.items() if name in arrays}
        scatters = {attribute: Scatter(*(arrays[f"{name}_{part.name}"] for part in fields(Scatter)))
                    for name, attribute in FILES.items() if f"{name}_count" in arrays}
        return replace(empty, **parts, **scatters)


class ClassMoments:
    """Raw moments of one session's windows about their class means, so that large values cancel nothing.

    Attributes:
        counts: windows of each class (G,).
        means: of each class (G, D).
    """

    def __init__(self, classes: int, size: int):
        self.counts, self.means = np.zeros(classes), np.zeros((classes, size))
        self._second, self._third = np.zeros((2, classes, size, size))  # S and T of each class
        self._pooled, self._fourth = np.zeros((2, size, size))  # S and Q of all classes together

    def add(self, x: np.ndarray, classes: np.ndarray) -> None:
        """Adds windows (N, D) with class indices (N,)."""
        for k in np.unique(classes):
            self._merge(k, x[classes == k])

    def _merge(self, k: int, rows: np.ndarray) -> None:
        before, count, mean = self.counts[k], len(rows), rows.mean(axis=0)
        total, second, third = before + count, self._second[k], self._third[k]
        apart = (mean - self.means[k]) / total
        self._move(before, second, third, apart * count)
        rows = rows - mean
        square = rows**2
        new_second, new_third = rows.T @ rows, square.T @ rows
        self._pooled += new_second
        self._fourth += square.T @ square
        self._move(count, new_second, new_third, -apart * before)
        second += new_second
        third += new_third
        self.counts[k] = total
        self.means[k] += apart * count

    def _move(self, count: float, second: np.ndarray, third: np.ndarray, h: np.ndarray) -> None:
        """Moves the mean of `count` rows by h (D,): changes their S and T in place, and those of all classes."""
        square, outer = h**2, np.multiply.outer(h, h)
        diagonal = second.diagonal() + count * square
        turned = 2 * third * h - np.multiply.outer(diagonal - 0.5 * count * square, square)
        self._fourth += 4 * outer * second - turned - turned.T
        third -= np.multiply.outer(diagonal, h) + 2 * h[:, None] * second
        outer *= count
        second += outer
        self._pooled += outer

    def total(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance (D,) of all windows."""
        count = self.counts.sum()
        mean = self.counts @ self.means / count
        return mean, (self._pooled.diagonal() + self.counts @ (self.means - mean) ** 2) / count

    def z_scored(self, centre: np.ndarray, sd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of (x - centre) / sd: class means (G, D), and the covariance (D, D) about them, shrunk."""
        weight, count = sd**-2, self.counts.sum()
        sample = self._pooled / (count * np.multiply.outer(sd, sd))
        return (self.means - centre) / sd, ledoit_wolf(sample, weight @ self._fourth @ weight, count)
