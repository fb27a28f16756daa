"""Filters and resampling of signals, for recordings and for live signals."""
