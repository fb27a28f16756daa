"""Hands: joints by name, drawn where anatomy has them; a name that nobody knows has no picture."""

import re
from pathlib import Path

import numpy as np
import pytest

from tfkfin.live import hands

NINAPRO = (  # exercise B, as Ninapro describes it, and the pose that each of them is
    "Thumb up", "Extension of index and middle, flexion of the others",
    "Flexion of ring and little finger, extension of the others", "Thumb opposing base of little finger",
    "Abduction of all fingers", "Fingers flexed together in fist", "Pointing index", "Adduction of extended fingers",
    "Wrist supination (axis: middle finger)", "Wrist pronation (axis: middle finger)",
    "Wrist supination (axis: little finger)", "Wrist pronation (axis: little finger)", "Wrist flexion",
    "Wrist extension", "Wrist radial deviation", "Wrist ulnar deviation", "Wrist extension with closed hand")


def flexed(joints: dict) -> str:
    """Which of index, middle, ring and little are flexed: "x" or "-"."""
    every = (joints.get(name, joints["fingers"]) for name in ("index", "middle", "ring", "little"))
    return "".join("x" if sum(finger) > 150 else "-" for finger in every)


def test_every_movement_of_exercise_b_has_a_hand_of_its_own():
    found = [hands.find(name) for name in NINAPRO]
    assert all(found) and len({hands.picture(name) for name in NINAPRO}) == 17
    assert [flexed(joints) for joints in found] == [
        "xxxx", "--xx", "--xx", "----", "----", "xxxx", "-xxx", "----", *["----"] * 8, "xxxx"]
    wrist = [joints["wrist"] for joints in found]
    assert all(bend == [0, 0] for bend in wrist[:12]) and wrist[12][0] > 30 > 0 > -30 > wrist[13][0]
    assert wrist[14][1] > 15 > 0 > -15 > wrist[15][1] and wrist[16][0] < -30
    supinated, pronated, *little = (joints for joints in found[8:12])
    assert supinated["turn"] < 45 and pronated["turn"] > 135 and [one["axis"] for one in little] == ["little"] * 2
    assert found[4]["spread"] > 10 > 0 > found[7]["spread"]


@pytest.mark.parametrize("name, same", [
    ("Close Hand", "fist"), ("hand_closed", "fist"), ("HandClose", "fist"), ("Hand open", "open hand"),
    ("OPEN", "open hand"), ("relaxed", "rest"), ("Flexed wrist", "wrist flexion"),
    ("flexion of the wrist", "wrist flexion"),
    ("wrist-extension", "Wrist extension"), ("Flex Hand", "wrist flexion"), ("Pointer", "pointing index"),
    ("Supinate", "wrist supination"), ("Agree", "Thumb up"), ("Side Grip", "key grip"), ("power grasp", "power grip"),
    ("index finger flexion", "index flexion"), ("Radial deviation", "wrist radial deviation"), ("pinching", "pinch")])
def test_a_movement_is_known_by_its_other_names(name, same):
    assert hands.find(name) is not None and hands.picture(name) == hands.picture(same)


@pytest.mark.parametrize("name", [
    "", "3", "movement", "left", "thumb", "flexion", "hand", "not a fist", "elbow flexion", "finger", "wrist", "<b>",
    "开", "flexion of index and middle, extension of the others"])
def test_no_hand_is_guessed(name):
    assert hands.find(name) is None and hands.picture(name) == ""


def lines(name: str, share: float = 1.0) -> np.ndarray:
    """Ends (n, 4) of all bones of a picture, in order of depth."""
    found = re.findall(r"M(\S+),(\S+) L(\S+),(\S+)\"", hands.picture(name, share))
    return np.array(found, float)


def test_fingers_and_wrist_go_where_they_should():
    """On the picture: x to the right, y down. One sees the palm of a right hand, so that its thumb is at the right."""
    top = {name: -lines(name)[:, 1::2].min() for name in ("open hand", "fist", "pointing index", "rest")}
    assert top["open hand"] > 1.7 and top["pointing index"] > 1.6 and top["fist"] < 1.3
    assert top["fist"] < top["rest"] < top["open hand"]
    assert lines("open hand")[:, ::2].max() > 0.8  # the thumb
    middle = {name: lines(name)[:, ::2].mean() for name in (
        "wrist flexion", "wrist extension", "wrist radial deviation", "wrist ulnar deviation")}
    assert middle["wrist radial deviation"] > 0.1 > -0.1 > middle["wrist ulnar deviation"]
    assert middle["wrist extension"] > 0.2 > -0.2 > middle["wrist flexion"]  # the palm is at the left
    halfway = [np.abs(lines("wrist flexion", share)[:, ::2]).max() for share in (0.4, 0.7, 1.0)]
    assert halfway == sorted(halfway)


def test_what_is_seen_of_a_turned_hand_is_its_palm_or_its_back():
    def colour(name):
        return int(re.search(r"<polygon.*?<polygon[^>]*fill=.rgb\((\d+)", hands.picture(name))[1])

    assert colour("supination") == 246 and colour("pronation") < 215 < colour("rest")
    nails = "#fbe9de"
    assert nails in hands.picture("pronation") and nails not in hands.picture("open hand")


def test_every_hand_of_the_table_stays_on_its_picture():
    table = Path(hands.__file__).with_name("hands.toml").read_text("utf-8")
    for path in re.findall(r'^names = \["([^"]+)', table, re.M):
        ends = lines(path).reshape(-1, 2)
        ends = ends[ends[:, 1] < 2.5]  # but for the forearm, which is cut
        assert (np.abs(ends[:, 0]) < 1.8).all() and (ends[:, 1] > -2.25).all(), path
