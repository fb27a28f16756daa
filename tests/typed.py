"""What a type checker has to know of the public surface; mypy reads this, nobody runs it."""

from pathlib import Path
from typing import assert_type

import numpy as np

import tfkfin
from tfkfin.client import connect
from tfkfin.recordings.recording import Recording, Recordings

found = tfkfin.read("folder")
assert_type(found, Recordings)
monday, tuesday = found
assert_type(monday, Recording)
one = found[0]
assert_type(one.rate_hz, float)

decoder = tfkfin.Decoder.from_preset(Path("best")).fit(one)
assert_type(decoder, tfkfin.Decoder)
assert_type(decoder.fit(one.emg, one.labels, one.repetitions, one.rate_hz, "mV"), tfkfin.Decoder)
assert_type(decoder.predict(one.emg), np.ndarray)
assert_type(decoder.stream(one.emg, rate_hz=2000.0), dict[str, np.ndarray])
assert_type(decoder.calibrate([one], repetitions="1,2"), tfkfin.Decoder)
assert_type(decoder.update(one.emg, 3).revert(), tfkfin.Decoder)
assert_type(decoder.export("folder", "both"), Path)
decoder.fit(one, unit="volts")  # type: ignore[arg-type]
assert_type(decoder.predict(one), np.ndarray)
assert_type(decoder.predict(found), np.ndarray)
assert_type(decoder.predict([[0.0, 1.0]]), np.ndarray)
assert_type(decoder.score(found), float)
assert_type(decoder.session().stream(one), dict[str, np.ndarray])
assert_type(decoder.session().carried(), tfkfin.Decoder)
decoder.predict([one])  # type: ignore[arg-type]

features = tfkfin.FINFeatures(("RMS",), family="conv").fit(one.emg)
assert_type(features.transform(one.emg), np.ndarray)
classifier = tfkfin.FINClassifier(head="linear").fit(one.emg, one.labels, sessions=one.labels)
assert_type(classifier.predict_proba(one.emg), np.ndarray)
assert_type(classifier.classes_, np.ndarray)

with connect("http://localhost:8501", "model") as client:
    assert_type(client.predict(one.emg), dict[str, np.ndarray])
    assert_type(client.target.model, str)
