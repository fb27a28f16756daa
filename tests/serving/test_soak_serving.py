"""A long service: every answer is right, every bad request gets its error, and memory stays.

TFKFIN_SOAK_S: how long, in seconds.
"""

import os
import shutil
import time
from collections import Counter

import keras
import numpy as np
import pytest
import serving_cases as cases
from bad_requests import Storm

from tfkfin import recipe as recipes
from tfkfin.decoder import decoder as decoders
from tfkfin.nets import heads
from tfkfin.nets.network import Parts
from tfkfin.nets.network import network as join
from tfkfin.serving import version
from tfkfin.serving.engines import ENGINES, Exported
from tfkfin.store import card, folders, presets

SECONDS = float(os.environ.get("TFKFIN_SOAK_S", 20))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder with a file for every engine: untrained conv FINs and a head, 3 channels at 2 kHz."""
    recipe = recipes.load(None, {"window.length_ms": 50, "window.stride_ms": 10, "fin.family": "conv", "fin.units": 4,
                                 "fin.pretrained": "", "features.names": "RMS,VAR", "classifier.kind": "linear"})
    keras.utils.set_random_seed(3)
    head = heads.new(recipe.classifier, ("RMS", "VAR"), 100, 3, 3)
    network = join(presets.new_bank(recipe.fin, ("RMS", "VAR"), 100, 3), head)
    Parts.of(network).standardise.set(np.zeros(3), np.full(3, 1e-5))
    about = card.of_fitted(card.about(recipe, 2000.0, 100, 20, (1, 2, 3), np.zeros(3), np.full(3, 1e-5)), 9, 1,
                           True, network.count_params())
    folder = tmp_path_factory.mktemp("models") / "soak"
    with folders.new_version(folder) as (partial, number):
        about |= {"name": "soak", "version": number, "format": "both", "precision": "float32"}
        version.write_decoder(partial, decoders.BaseDecoder(about, network), about)
    return folder


@pytest.mark.slow
def test_a_long_service_answers_rightly_and_grows_no_memory(model, tmp_path):
    """The stand-in server by REST and gRPC, good and bad requests mixed; in turn each engine in this process."""
    shutil.copytree(cases.GOLDEN, tmp_path / "models")
    engines = {name: Exported(model, name) for name in ENGINES if name != "litert"}
    emg = (1e-5 * np.random.default_rng(0).standard_normal((2100, 3))).astype(np.float32)
    windows = np.stack([emg[start : start + 100] for start in range(0, 2001, 20)])
    wanted, streamed = engines["native"](windows), engines["native"].stream(emg)
    ours, theirs, seen, answered, end = [], [], Counter(), 0, time.monotonic() + SECONDS
    with cases.standin(tmp_path / "models", tmp_path / "ready.json") as server:
        while time.monotonic() < end or len(ours) < 4:
            seen.update(Storm(server["rest"], server["grpc"]).run(bad=80, seed=len(ours)))
            for _ in range(20):
                for engine in engines.values():
                    for got, right in ((engine(windows), wanted), (engine.stream(emg), streamed)):
                        np.testing.assert_allclose(got["probabilities"], right["probabilities"], atol=cases.TOLERANCE)
                    answered += len(windows) + len(streamed["label"])
            ours.append(cases.resident_mb(os.getpid()))
            theirs.append(cases.resident_mb(server["pid"]))
        assert server["process"].poll() is None
    served, refused = seen.pop(("good", "OK")), Counter()
    for (_, code), count in seen.items():
        refused[code] += count
    print(f"{SECONDS:g} s: {served} requests served, {refused.total()} of {len({kind for kind, _ in seen})} bad kinds "
          f"refused {dict(refused)}, {answered} windows on {len(engines)} engines, MB here {ours[0]:.0f} "
          f"{ours[-1]:.0f}, of the server {theirs[0]:.0f} {theirs[-1]:.0f}")
    for memory in (ours, theirs):  # the first rounds fill caches
        early, late = max(memory[: 1 + len(memory) // 3]), max(memory[-2:])
        assert late < 1.05 * early + 20, memory
