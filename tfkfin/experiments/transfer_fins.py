"""Decoders on FINs, for the ladder of protocols: the paper's head and the solved one, on what shipped FINs imitate."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfkfin.experiments.lasting import Lasting
from tfkfin.experiments.sessions import Session
from tfkfin.experiments.transfer import CHUNK, Discriminant, Known, Learnt, over
from tfkfin.features.spatial import covariances, log_euclidean
from tfkfin.fit import training
from tfkfin.fit.run import Run
from tfkfin.fit.trainers import HeadTrainer
from tfkfin.nets import descriptions, streaming
from tfkfin.nets.heads.gaussian import Memory
from tfkfin.nets.layers import LogScale
from tfkfin.nets.over_recording import OverRecording
from tfkfin.pipeline.standardisation import ChannelStatistics as Moments
from tfkfin.store import presets

MOST = 4000  # windows that a head trained by gradients learns from


class Imitation:
    """What the FINs of a recipe answer, on windows standardised by the samples that may be learnt from."""

    def __init__(self, run: Run):
        recipe, data = run.recipe, run.dataset
        bank = presets.new_bank(recipe.fin, recipe.features.names, data.length, data.channels)
        describe = descriptions.new(recipe.classifier, "describe")
        self._log = LogScale(recipe.features.names)
        self._kept, self._raw = {}, {}
        self._mean, self._sd = tf.Variable(tf.zeros(data.channels)), tf.Variable(tf.ones(data.channels))

        def make(stride: int):
            features = streaming.stream_bank(bank, stride)

            def answer(volts):
                x = (volts - self._mean) / self._sd
                return features(x), describe.stream(x, data.length, stride, True)

            return answer

        self._over = OverRecording(make, data.length, data.channels, streaming.streams(bank))

    def learn(self, learnt: Learnt) -> None:
        """Mean and deviation of each channel over the movements' windows that may be learnt from."""
        mean, sd = statistics(learnt)
        self._mean.assign(mean), self._sd.assign(sd)
        self._kept.clear()

    def features(self, session: Session) -> np.ndarray:
        """(N, C, F) in own units."""
        return self._answers(session)[0]

    def described(self, session: Session) -> np.ndarray:
        """Features, those that scale with the signal by their logarithm, and correlations: (N, C F + S)."""
        features, correlations = self._answers(session)
        logged = np.asarray(self._log(features)).reshape(len(features), -1)
        return np.concatenate([logged, correlations], axis=1).astype(np.float64)

    def loudness(self, session: Session) -> np.ndarray:
        """(N,) as of `tfkfin.nets.heads.gaussian.loudness`."""
        logged = np.asarray(self._log(self.features(session)))[..., self._log.logged]
        return logged.mean(axis=(1, 2)) if logged.size else np.full(len(session), np.inf)

    def spatial(self, session: Session) -> np.ndarray:
        """The same and log-covariances of the standardised signal and its first two differences."""
        key = session.person, session.number, "spatial"
        if key not in self._kept:
            sd = np.asarray(self._sd, np.float64)
            logs = [log_euclidean(volts / np.outer(sd, sd)) for volts in np.moveaxis(self._covariances(session), 1, 0)]
            self._kept[key] = np.concatenate([self.described(session), *logs], axis=1)
        return self._kept[key]

    def _covariances(self, session: Session) -> np.ndarray:
        """Of the signal and its first two differences (N, 3, C, C), volts squared, whatever is learnt from."""
        def found(windows: np.ndarray, rate_hz: float) -> np.ndarray:
            windows = np.asarray(windows, np.float64)
            return np.stack([covariances(windows, n) for n in (0, 1, 2)], axis=1)

        key = session.person, session.number
        if key not in self._raw:
            self._raw[key] = over(session, found)
        return self._raw[key]

    def _answers(self, session: Session) -> tuple[np.ndarray, np.ndarray]:
        key = session.person, session.number
        if key not in self._kept:
            self._kept[key] = self._over(session.subject.emg, session.subject.windows.starts)
        return self._kept[key]


def statistics(learnt: Learnt) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each channel (C,) over the movements' windows that may be learnt from."""
    total = Moments(0, 0.0, 0.0)
    for session, chosen in learnt:
        rows = np.flatnonzero(chosen & (session.labels > 0))
        for i in range(0, len(rows), CHUNK):
            x = session.subject.volts(session.length, rows[i : i + CHUNK])
            x = x.reshape(-1, x.shape[2])
            mean = x.mean(axis=0, dtype=np.float64)
            total += Moments(len(x), mean, ((x - mean) ** 2).sum(axis=0))
    return total.mean_and_sd()


class LastingFins(Lasting):
    """The model that lasts, on imitated features, correlations and log-covariances: the one that we recommend.

    It is what a decoder of the recipe `best` does as `tfkfin.decoder.adapting`, which the tests hold.
    """

    def __init__(self, imitation: Imitation, adapts: bool = True):
        super().__init__(adapts=adapts, see=imitation.spatial)
        self._imitation = imitation

    def fit(self, learnt: Learnt, classes: tuple[int, ...]) -> "LastingFins":
        self._imitation.learn(learnt)
        return super().fit(learnt, classes)

    def _loudness(self, session: Session) -> np.ndarray:
        return self._imitation.loudness(session)

    def _quiet(self, learnt: Learnt, rows: Sequence[tuple[Session, np.ndarray]]) -> float:
        """As the head `gaussian` has it."""
        found = Memory().heard(np.concatenate([self._loudness(s)[at] for s, at in rows]),
                               np.concatenate([self._loudness(s)[chosen & (s.labels == 0)] for s, chosen in learnt]))
        return found.quiet


class SolvedHead:
    """The head `gaussian` on the same (the recipe `best`): exported as it is, or calibrated with what is known."""

    def __init__(self, imitation: Imitation):
        self._imitation = imitation

    def fit(self, learnt: Learnt, classes: tuple[int, ...]) -> "SolvedHead":
        self._calibrated = LastingFins(self._imitation, False).fit(learnt, classes)
        self._plain = Discriminant(self._imitation.spatial).fit(learnt, classes)
        return self

    def decide(self, session: Session, known: Known | None) -> np.ndarray:
        return (self._plain if known is None else self._calibrated).decide(session, known)


class ConvHead:
    """The paper's head on imitated features (the recipe `own`; FINs stay as they are, which cost it nothing there).

    With labels of the new session it goes on learning from these, for as many epochs again. Of many windows it learns
    from MOST, evenly spread: neighbours overlap.
    """

    def __init__(self, imitation: Imitation, run: Run, classes: tuple[int, ...]):
        self._imitation, self._seed, self._classes = imitation, run.recipe.seed, classes
        self._trainer = HeadTrainer(run, len(classes))
        self._start = self._trainer.restart

    def fit(self, learnt: Learnt, classes: tuple[int, ...]) -> "ConvHead":
        self._imitation.learn(learnt)
        self._trainer.restart = self._start
        kept = [(s, chosen & np.isin(s.labels, classes)) for s, chosen in learnt]
        self._train(np.concatenate([self._imitation.features(s)[chosen] for s, chosen in kept]),
                    np.concatenate([s.labels[chosen] for s, chosen in kept]))
        self._learnt = training.Restart(self._trainer.model, self._trainer.optimizer)
        return self

    def decide(self, session: Session, known: Known | None) -> np.ndarray:
        features = self._imitation.features(session)
        self._learnt()
        if known is not None and known.labelled:
            own = known.windows & np.isin(session.labels, self._classes)
            self._trainer.restart = self._learnt
            self._train(features[own], session.labels[own])
        return self._trainer.predict(features, 4096)

    def _train(self, features: np.ndarray, labels: np.ndarray) -> None:
        thin = slice(None, None, max(1, -(-len(labels) // MOST)))
        self._trainer.fit(features[thin], np.searchsorted(self._classes, labels[thin]), self._seed, "ladder")
