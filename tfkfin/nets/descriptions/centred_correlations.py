"""Correlations about the means of a window, which no offset of an electrode changes."""

from tfkfin.nets.descriptions.correlations import Correlations

DESCRIPTION = lambda options, name: Correlations(options.lags, centred=True, name=name)  # noqa: E731
