"""Logarithms of the covariance between channels, of the signal and of its first two differences.

The strongest simple description between days that we know; differences weigh fast parts of the signal more.
"""

from tfkfin.nets.descriptions import Beside
from tfkfin.nets.spatial import LogCovariance

DESCRIPTION = lambda options, name: Beside([LogCovariance(n, name=f"of_{n}") for n in (0, 1, 2)], name=name)  # noqa: E731
