"""The logarithm of the covariance between channels: the strongest simple description between days that we know."""

from tfkfin.models.spatial import LogCovariance

DESCRIPTION = lambda options, name: LogCovariance(name=name)  # noqa: E731
