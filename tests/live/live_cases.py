"""What the tests of live sessions share: small decoders, and an output that keeps what it is given."""

import numpy as np

import tfkfin
from tfkfin import recipe as recipes
from tfkfin.live.loop import Loop
from tfkfin.live.outputs import Output
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
    decoder = tfkfin.Decoder.from_preset("best")
    decoder.recipe = recipes.load("best", SETTINGS | settings)
    return decoder.fit(recordings)


def sure(probabilities: np.ndarray, reject: float) -> np.ndarray:
    """Windows (N,) whose decision no rounding turns."""
    two = np.sort(probabilities, axis=1)[:, -2:]
    return (two[:, 1] - two[:, 0] > 1e-4) & (np.abs(two[:, 1] - reject) > 1e-4)


class Kept(Output):
    def __init__(self):
        self.made, self.notes = [], []

    def __call__(self, made):
        self.made.append(made)

    def note(self, text):
        self.notes.append(text)

    @property
    def labels(self):
        return np.array([made.label for made in self.made])


def played(stream, recording, **how) -> Kept:
    kept = Kept()
    Loop(stream, Replay(recording, 0, **how), [kept]).run()
    return kept
