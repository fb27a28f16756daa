"""What the tests of live sessions share: small decoders, and an output that keeps what it is given."""

import subprocess
import sys
import time

import numpy as np

import tfkfin
from tfkfin import recipe as recipes
from tfkfin.live.loop import Loop
from tfkfin.live.outputs import LiveOutput
from tfkfin.live.sources.replay import Replay

CASES = {"streaming": {"fin.family": "conv"},
         "filtered": {"fin.family": "conv", "filter.high_pass_hz": 20, "filter.notch_hz": 50,
                      "classifier.describe": "correlations"},
         "windows": {"fin.family": "dense", "filter.high_pass_hz": 20}}
SETTINGS = {"window.length_ms": 100, "window.stride_ms": 20, "window.rest": True, "fin.pretrained": "", "fin.units": 8,
            "classifier.vote": 3, "classifier.reject": 0.3}


def fitted(recordings, settings) -> tfkfin.Decoder:
    import keras

    keras.utils.set_random_seed(11)
    decoder = tfkfin.Decoder.from_preset("best_fins")
    decoder.recipe = recipes.load("best_fins", SETTINGS | settings)
    return decoder.fit(recordings)


def sure(probabilities: np.ndarray, reject: float) -> np.ndarray:
    """Windows (N,) whose decision no rounding turns."""
    two = np.sort(probabilities, axis=1)[:, -2:]
    return (two[:, 1] - two[:, 0] > 1e-4) & (np.abs(two[:, 1] - reject) > 1e-4)


class Kept(LiveOutput):
    def __init__(self):
        self.made, self.notes = [], []

    def __call__(self, made):
        self.made.append(made)

    def note(self, text):
        self.notes.append(text)

    @property
    def labels(self):
        return np.array([made.label for made in self.made])


class Slow:
    """A network that takes its time."""

    def __init__(self, network, seconds):
        self.network, self.seconds, self.restart = network, seconds, network.restart

    def __call__(self, volts, newest=None):
        answers = self.network(volts, newest)
        for _ in range(0 if answers is None else len(answers["probabilities"])):
            time.sleep(self.seconds)
        return answers


def played(stream, recording, **how) -> Kept:
    kept = Kept()
    Loop(stream, Replay(recording, 0, **how), [kept]).run()
    return kept


OUTLET = """
import sys, time
import numpy as np, pylsl
name, path, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
emg = np.load(path)
info = pylsl.StreamInfo(name, "EMG", emg.shape[1], 2000, pylsl.cf_float32)
channels = info.desc().append_child("channels")
for c in range(emg.shape[1]):
    channels.append_child("channel").append_child_value("unit", "microvolts")
outlet = pylsl.StreamOutlet(info)
began = time.perf_counter()
for i in range(0, int(seconds * 2000), 20):
    time.sleep(max(0, began + i / 2000 - time.perf_counter()))
    rows = np.arange(i, i + 20) % len(emg)
    outlet.push_chunk((1e6 * emg[rows]).astype(np.float32).tolist())
"""


def outlet(name, path, seconds) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", OUTLET, name, str(path), str(seconds)], stderr=subprocess.DEVNULL)
