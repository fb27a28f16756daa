"""Axes of arrays: (T, C) and (B, L, C) here, (N, C, L) in scikit-learn. What fits in another order is said so."""

from collections.abc import Mapping
from itertools import permutations

import numpy as np

from tfkfin.base.errors import InputError


def signal(name: str, shape: tuple[int, ...], channels: int) -> None:
    """Raises InputError unless this is the shape of a signal (T, C)."""
    if len(shape) != 2 or shape[1] != channels:
        raise InputError(f"`{name}` must be (T, {channels}). Received: shape {shape}"
                         f"{turned(name, shape, {'T': 0, 'C': channels})}")


def windows(name: str, shape: tuple[int, ...], length: int, channels: int, at: str = "") -> None:
    """Raises InputError unless this is the shape of windows (B, L, C), at least one; `at`: more about them."""
    if shape[1:] != (length, channels) or not shape[0]:
        raise InputError(f"`{name}` must be windows (B, {length}, {channels}){at}, B > 0. Received: shape "
                         f"{shape}{turned(name, shape, {'B': 0, 'L': length, 'C': channels})}")


def turned(name: str, shape: tuple[int, ...], axes: Mapping[str, int]) -> str:
    """How to turn an array that fits once an axis is moved, as the end of a message; "" where moving none helps.

    Args:
        name: of the array.
        shape: what was received.
        axes: names and sizes in the order that is asked for; 0: any size.
    """
    for source, target in permutations(range(len(shape)), 2):
        sizes, order = list(shape), list(axes)
        sizes.insert(target, sizes.pop(source))
        if len(sizes) == len(axes) and all(np.equal(sizes, list(axes.values())) | np.equal(list(axes.values()), 0)):
            order.insert(source, order.pop(target))
            return f", which is ({', '.join(order)}): turn it with np.moveaxis({name}, {source}, {target})"
    return ""
