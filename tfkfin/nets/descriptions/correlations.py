"""Correlations of a channel with itself some samples later, and between channels: shape, whatever the loudness."""

from tfkfin.nets.layers import Correlations

DESCRIPTION = lambda options, name: Correlations(options.lags, name=name)  # noqa: E731
