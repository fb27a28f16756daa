"""Hands of movements that are known by name: a right hand, drawn from the angles of its joints in hands.toml.

The hand has a frame of its own: x towards the thumb, y along the fingers, z out of the palm, in breadths of a palm. It
is seen along z once the forearm is turned about y; its parts are drawn from the farthest to the nearest.
"""

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from tfkfin.base.files import read_toml

FINGERS = {"index": (0.36, 0.94, 1.0, (0.44, 0.27, 0.2)), "middle": (0.12, 0.98, 0.2, (0.49, 0.3, 0.21)),
           "ring": (-0.13, 0.94, -0.5, (0.45, 0.28, 0.2)),
           "little": (-0.36, 0.84, -1.2, (0.35, 0.2, 0.18))}  # x, y, share of the spread, lengths of bones
THUMB = (0.25, 0.2, 0.06), (0.42, 0.32, 0.27)  # where it begins, lengths of bones
WIDTHS = {"finger": (0.21, 0.19, 0.17), "thumb": (0.27, 0.23, 0.2)}
PALM = np.array([(-0.2, 0.06, 0), (-0.33, 0.78, 0), (-0.13, 0.86, 0), (0.12, 0.9, 0), (0.33, 0.86, 0), (0.29, 0.3, 0),
                 (0.19, 0.06, 0)])
FRONT, BACK, EDGE = np.array([246, 208, 178]), np.array([203, 148, 110]), "#6d4126"  # skin, as a palm and as a back


@cache
def _table() -> dict:
    return read_toml(Path(__file__).with_name("hands.toml"))


def _words(name: str) -> tuple[str, ...]:
    """The words of a name that count, each in one form; in order where there are more than three."""
    parts = re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    kept = [form for part in parts if (form := _table()["words"].get(part, part))]
    return tuple(kept if len(kept) > 3 else sorted(kept))


@cache
def _hands() -> dict[tuple[str, ...], dict]:
    every = _table()["hand"]
    return {_words(name): every[0] | joints for joints in every for name in joints["names"]}


def find(name: str) -> dict | None:
    """The joints of a movement, as in hands.toml, by its name; None: nobody knows what it looks like."""
    return _hands().get(_words(name))


@lru_cache(1000)
def picture(name: str, share: float = 1.0) -> str:
    """The hand of a movement, a share of the way from rest, as SVG; "" where nobody knows what it looks like."""
    joints = find(name)
    return "" if joints is None else _svg(joints, share)


def _svg(joints: dict, share: float) -> str:
    def at(name: str, otherwise: str = "") -> np.ndarray:
        rest = _table()["hand"][0]
        end, begin = (np.array(of.get(name, of.get(otherwise)), float) for of in (joints, rest))
        return begin + share * (end - begin)

    flexion, deviation = at("wrist")
    seen = Rotation.from_euler("y", -joints["turn"], degrees=True)
    hand = seen * Rotation.from_euler("zx", (-deviation, flexion), degrees=True)
    parts = [(-9.0, _line(seen.apply([(0, -3, 0), (0, 0, 0)]), 0.44, _skin(seen.apply((0, 0, 1))[2])))]
    parts.append((0.0, _palm(hand)))
    for name, (x, y, fan, lengths) in FINGERS.items():
        way = np.radians(fan * at("spread"))
        along = np.array([np.sin(way), np.cos(way), 0])
        parts += _bones(hand, (x, y, 0), along, np.array([0, 0, 1.0]), lengths, at(name, "fingers"), WIDTHS["finger"])
    aside, out, *bent = at("thumb")
    side, up = np.radians((aside, out))
    along = np.array([np.sin(side) * np.cos(up), np.cos(side) * np.cos(up), np.sin(up)])
    towards = np.array([-1, 0.25, 0.45])
    towards -= towards @ along * along
    parts += _bones(hand, THUMB[0], along, towards / np.linalg.norm(towards), THUMB[1], (0, *bent), WIDTHS["thumb"])
    shapes = "".join(shape for _, shape in sorted(parts, key=lambda part: part[0]))
    return ('<svg viewBox="-1.8 -2.25 3.6 3.4" stroke-linecap="round" stroke-linejoin="round">'
            f'<g transform="rotate({-joints["lie"]})">{shapes}{_arrow(joints)}</g></svg>')


def _bones(hand: Rotation, base, along, towards, lengths, flexion, widths) -> Iterator[tuple[float, str]]:
    """(Depth, shape) of each bone of a finger, which points `along` and is bent `towards`; and of its nail."""
    at, bent, palm = np.array(base, float), np.radians(np.cumsum(flexion)), hand.apply((0, 0, 1))[2]
    for i, (length, angle, width) in enumerate(zip(lengths, bent, widths, strict=True)):
        way, back = np.cos(angle) * along + np.sin(angle) * towards, np.sin(angle) * along - np.cos(angle) * towards
        end = at + length * way
        before = 1.0 if palm * (at + end)[2] >= -0.05 else -1.0  # nearer than the palm, or behind it
        points, shown = hand.apply([at, end]), hand.apply(back)[2]
        yield before + points[:, 2].mean() / 9, _line(points, width, _skin(-shown))
        if i == 2 and shown > 0.25:
            nail = hand.apply([end - 0.1 * way, end]) + 0.5 * width * 0.55 * hand.apply(back)
            yield before + points[:, 2].mean() / 9 + 1e-3, _line(nail, 0.09 * shown + 0.02, "#fbe9de", 0.025)
        at = end


def _palm(hand: Rotation) -> str:
    points = " ".join(f"{x:.3f},{-y:.3f}" for x, y, _ in hand.apply(PALM))
    return "".join(f'<polygon points="{points}" fill="{colour}" stroke="{colour}" stroke-width="{width}"/>'
                   for colour, width in ((EDGE, 0.3), (_skin(hand.apply((0, 0, 1))[2]), 0.24)))


def _line(points: np.ndarray, width: float, colour: str, edge: float = 0.05) -> str:
    (x, y), (to_x, to_y) = points[:, :2]
    return "".join(f'<path d="M{x:.3f},{-y:.3f} L{to_x:.3f},{-to_y:.3f}" stroke="{of}" stroke-width="{wide:.3f}"/>'
                   for of, wide in ((EDGE, width + edge), (colour, width)))


def _skin(palm: float) -> str:
    """The colour of what shows its palm's side (1), its back (-1), or something between."""
    return "rgb({:.0f},{:.0f},{:.0f})".format(*BACK + (palm + 1) / 2 * (FRONT - BACK))


def _arrow(joints: dict) -> str:
    """The axis that the forearm turns about, and the way of its near side."""
    if "axis" not in joints:
        return ""
    x = FINGERS[joints["axis"]][0] * np.cos(np.radians(joints["turn"]))
    way = 1 if joints["turn"] < 90 else -1  # supinated: towards the thumb
    return (f'<g transform="translate({x:.3f},0.62) scale({way},1)" fill="none" stroke="#0072b2" stroke-width="0.07">'
            '<path d="M0,-2.75 V0.5" stroke-width="0.03" stroke-dasharray="0.12 0.1"/>'
            '<path d="M-0.62,-0.12 C-0.4,0.2 0.4,0.2 0.62,-0.12 M0.36,-0.06 L0.62,-0.12 L0.66,0.16"/></g>')
