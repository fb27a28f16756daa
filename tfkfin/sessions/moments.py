"""Moments of labelled windows that come one by one or in blocks, and what a covariance is shrunk to by them, exactly.

A session's windows are z-scored by the deviation s of all of them and counted from their class means; both move with
every window. Ledoit and Wolf's share needs the sum of |y|^4 over rows y so scaled. With u a raw row about its class
mean and w = 1 / s^2, that is w' Q w with Q the sum of u^2 (u^2)'; and when a class mean moves by h, Q changes by
products of h, M the sum of u u', and T the sum of u^2 u' alone. So D x D numbers are enough, and no window is kept.

References: Ledoit, Wolf 2004, doi:10.1016/S0047-259X(03)00096-4; Pebay 2008, Sandia report SAND2008-6212 (moments about
means, two sets at a time).
"""

import numpy as np

from tfkfin.sessions.taught import shrunk


class Moments:
    """Of windows (N, D) of G classes, kept about their class means so that large values cancel nothing.

    Attributes:
        counts: windows of each class (G,); means: of each class (G, D).
    """

    def __init__(self, classes: int, size: int):
        self.counts, self.means = np.zeros(classes), np.zeros((classes, size))
        self._second, self._third = np.zeros((2, classes, size, size))
        self._pooled, self._fourth = np.zeros((2, size, size))

    def add(self, x: np.ndarray, classes: np.ndarray) -> None:
        """Takes in windows (N, D) and their class indices (N,)."""
        for k in np.unique(classes):
            self._merge(k, x[classes == k])

    def _merge(self, k: int, rows: np.ndarray) -> None:
        before, count, mean = self.counts[k], len(rows), rows.mean(axis=0)
        total, second, third = before + count, self._second[k], self._third[k]
        apart = (mean - self.means[k]) / total
        self._moved(before, second, third, apart * count)
        if count == 1:
            new, added = np.zeros_like(second), np.zeros_like(third)
        else:
            rows = rows - mean
            square = rows**2
            new, added = rows.T @ rows, square.T @ rows
            self._pooled += new
            self._fourth += square.T @ square
        self._moved(count, new, added, -apart * before)
        second += new
        third += added
        self.counts[k] = total
        self.means[k] += apart * count

    def _moved(self, count: float, second: np.ndarray, third: np.ndarray, by: np.ndarray) -> None:
        """Counts `count` rows, whose moments about their mean these are, from that mean + `by` (D,); changes them."""
        square, outer = by**2, np.multiply.outer(by, by)
        spread = second.diagonal() + count * square
        turned = 2 * third * by - np.multiply.outer(spread - 0.5 * count * square, square)
        self._fourth += 4 * outer * second - turned - turned.T
        third -= np.multiply.outer(spread, by) + 2 * by[:, None] * second
        outer *= count
        second += outer
        self._pooled += outer

    def whole(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of all windows (D,)."""
        count = self.counts.sum()
        mean = self.counts @ self.means / count
        return mean, (self._pooled.diagonal() + self.counts @ (self.means - mean) ** 2) / count

    def about(self, centre: np.ndarray, spread: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of windows less `centre` over `spread` (D,): class means (G, D); the covariance (D, D) about them, shrunk."""
        weight, count = spread**-2, self.counts.sum()
        sample = self._pooled / (count * np.multiply.outer(spread, spread))
        return (self.means - centre) / spread, shrunk(sample, weight @ self._fourth @ weight, count)
