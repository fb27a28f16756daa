"""FINs by scikit-learn's rules, for pipelines and searches: windows (N, C, L), as in braindecode and pyRiemann."""

import functools
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from tfkfin import recipe as recipes
from tfkfin.base import machine, samples
from tfkfin.base.axes import turned
from tfkfin.base.errors import InputError
from tfkfin.base.files import read_json, replacing, shipped, write_json
from tfkfin.store import folders, presets

CHUNK = 256  # windows that go through the network at a time
STATE, NETWORK = "estimator.json", "network.keras"


class _OfWindows(BaseEstimator):
    """What both estimators share: parameters, checks, the z-score of channels, saving without pickle."""

    shape_: tuple[int, int]
    mean_: np.ndarray
    sd_: np.ndarray
    n_features_in_: int

    def __init__(self, features: tuple[str, ...] = ("ENT", "RMS", "VAR", "SSI"), family: str = "conv"):
        self.features = features
        self.family = family

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags

    def _windows(self, X: ArrayLike, y: Any = "no_validation", reset: bool = False) -> tuple[np.ndarray, Any]:
        """Windows (N, L, C) float64 and labels, checked."""
        machine.one_process()
        checked = validate_data(self, X, y, reset=reset, allow_nd=True, ensure_2d=False, dtype=np.float64)
        x, y = (checked, None) if isinstance(y, str) else checked
        if x.ndim != 3:
            raise ValueError(f"`X` must be windows (N, C, L). Received: shape {x.shape}. Reshape your data")
        if reset and x.shape[1] > x.shape[2]:
            raise ValueError(f"`X` must be windows (N, C, L) of more samples than channels. Received: shape {x.shape}"
                             f"{turned('X', x.shape, {'N': len(x), 'C': x.shape[2], 'L': x.shape[1]})}")
        if not reset and x.shape[1:] != self.shape_:
            raise ValueError(f"X has {x.shape[1]} features, but {type(self).__name__} is expecting {self.shape_[0]} "
                             f"features as input: `X` must be (N, {self.shape_[0]}, {self.shape_[1]}), as in `fit`. "
                             f"Received: shape {x.shape}"
                             f"{turned('X', x.shape, {'N': 0, 'C': self.shape_[0], 'L': self.shape_[1]})}")
        return samples.checked(x, "X").transpose(0, 2, 1), y

    def _fit_scale(self, x: np.ndarray) -> None:
        if self.family not in (there := _shipped()):
            raise ValueError(f"`family` must be one of {tuple(there)}. Received: family={self.family!r}")
        if not self.features or (unknown := set(self.features) - set(there[self.family])):
            raise ValueError(f"`features` must be of {there[self.family]}. Received: {sorted(unknown)}"
                             if self.features else "`features` is empty")
        self.shape_, self.n_features_in_ = (x.shape[2], x.shape[1]), x.shape[2]
        self.mean_, sd = x.mean(axis=(0, 1)), x.std(axis=(0, 1))
        self.sd_ = np.where(sd > 0, sd, 1.0)

    def save(self, folder: str | Path) -> None:
        """Writes a fitted estimator, as JSON and a Keras file, into a folder that is not there yet.

        Raises:
            InputError: there is a file or folder of that name.
        """
        check_is_fitted(self)
        folder = Path(folder)
        if folder.exists():
            raise InputError(f"{folder} is there already and is never overwritten: choose another name")
        fitted = {name: value for name, value in vars(self).items() if name[-1] == "_" != name[0]}
        if model := fitted.pop("model_", None):
            with replacing(folder / NETWORK) as partial:
                model.save(partial)
        arrays = {name: [value.dtype.str, value.tolist()] for name, value in fitted.items()
                  if isinstance(value, np.ndarray)}
        write_json(folder / STATE, {"class": type(self).__name__, "parameters": self.get_params(deep=False),
                                    "arrays": arrays, "values": {n: v for n, v in fitted.items() if n not in arrays}})

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The estimator that `save` wrote into a folder.

        Raises:
            InputError: the folder holds none of this class.
        """
        state = read_json(Path(folder, STATE))
        if state is None or state.get("class") != cls.__name__:
            raise InputError(f"{folder} holds no {cls.__name__} that `save` wrote")
        parameters: dict[str, Any] = _with_tuples(state["parameters"])
        new = cls(**parameters)
        arrays = {name: np.array(value, dtype) for name, (dtype, value) in state["arrays"].items()}
        for name, value in (_with_tuples(state["values"]) | arrays).items():
            setattr(new, name, value)
        if Path(folder, NETWORK).is_file():
            from tfkfin.nets import saving

            setattr(new, "model_", saving.load(Path(folder, NETWORK)))  # noqa: B010  not every class has one
        return new


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has lists alone, and these estimators tuples alone."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


class FINFeatures(TransformerMixin, _OfWindows):
    """Imitated features of windows, whose channels are standardised by mean and sd of the windows given to `fit`.

    Shipped FINs are trained on 600 samples at 2 kHz (300 ms); at other lengths they imitate approximately.

    Args:
        features: of ENT, RMS, VAR, SSI.
        family: "conv", "dense" or "bilstm".

    Attributes:
        mean_: of the windows given to `fit` (C,).
        sd_: of the same (C,), 1 for a flat channel.
        shape_: (C, L).
        n_features_in_: C.

    Example: `make_pipeline(FINFeatures(), StandardScaler(), LinearDiscriminantAnalysis())`.
    """

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """X: windows (N, C, L) in any unit."""
        x, _ = self._windows(X, reset=True)
        self._fit_scale(x)
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Windows (N, C, L) -> features of the standardised signal (N, C F), channel by channel."""
        check_is_fitted(self)
        x, bank = self._windows(X)[0], _bank(tuple(self.features), self.family, *self.shape_)
        parts = [np.asarray(bank(((x[i : i + CHUNK] - self.mean_) / self.sd_).astype(np.float32), training=False))
                 for i in range(0, len(x), CHUNK)]
        return np.concatenate(parts).reshape(len(x), -1).astype(np.float64)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of `transform`: feature and channel, from 0."""
        check_is_fitted(self)
        return np.array([f"{name}_{channel}" for channel in range(self.shape_[0]) for name in self.features], object)


class FINClassifier(ClassifierMixin, _OfWindows):
    """FINs and a head that is solved in closed form.

    Args:
        features, family: as of `FINFeatures`.
        head: "gaussian", which models differences between sessions (give them to `fit`), or "linear".
        describe: descriptions that the head gets beside features: "correlations", "log_covariance".

    Attributes:
        classes_: labels (G,).
        model_: the network, windows (B, L, C) -> {"probabilities", "features"}.
        mean_: as of `FINFeatures`, like `sd_`, `shape_` and `n_features_in_`.

    Example: `cross_val_score(FINClassifier(), X, y, groups=repetition, cv=LeaveOneGroupOut())`.
    """

    classes_: np.ndarray
    model_: Any

    def __init__(self, features: tuple[str, ...] = ("ENT", "RMS", "VAR", "SSI"), family: str = "conv",
                 head: str = "gaussian", describe: tuple[str, ...] = ("correlations", "log_covariance")):
        super().__init__(features, family)
        self.head = head
        self.describe = describe

    def fit(self, X: ArrayLike, y: ArrayLike, sessions: ArrayLike | None = None,
            repetitions: ArrayLike | None = None) -> Self:
        """X: windows (N, C, L) in any unit; y: labels (N,); sessions and repetitions (N,), all 0 if not given."""
        from tfkfin.nets import heads
        from tfkfin.nets.forward import Forward
        from tfkfin.nets.network import network

        x, y = self._windows(X, y, reset=True)
        check_classification_targets(y)
        check_consistent_length(x, sessions, repetitions)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"`y` must hold 2 classes or more. Received: one class, {self.classes_[0]!r}")
        self._fit_scale(x)
        options = recipes.Classifier(kind=self.head, describe=tuple(self.describe))
        if (kind := heads.kind(self.head)).solve is None:
            raise ValueError(f"`head` must be one that is solved. Received: head={self.head!r}")
        channels, length = self.shape_
        head = heads.new(options, tuple(self.features), length, channels, len(self.classes_))
        self.model_ = network(_bank(tuple(self.features), self.family, channels, length), head)
        forward = Forward(self.model_)
        forward.parts.standardise.set(self.mean_, self.sd_)
        sessions, repetitions = (np.zeros(len(x), int) if group is None else np.unique(group, return_inverse=True)[1]
                                 for group in (sessions, repetitions))
        kind.of(forward.parts).solve(forward.windows(x, ("inputs",))["inputs"], index, (sessions, repetitions))
        return self

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Windows (N, C, L) -> (N, G)."""
        from tfkfin.nets.forward import Forward

        check_is_fitted(self)
        found = Forward(self.model_).windows(self._windows(X)[0], ("probabilities",))
        return found["probabilities"].astype(np.float64)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Windows (N, C, L) -> labels (N,)."""
        best = self.predict_proba(X).argmax(axis=1)  # first: it raises NotFittedError, where `classes_` is missing
        labels: np.ndarray = self.classes_[best]
        return labels


@functools.cache
def _shipped() -> dict[str, tuple[str, ...]]:
    """FIN families that are shipped trained, and the features of each."""
    return {path.name.removeprefix("fin_"): tuple(folders.card(presets.find(path))["features"])
            for path in folders.models(shipped("savedmodels")) if path.name.startswith("fin_")}


def _bank(features: tuple[str, ...], family: str, channels: int, length: int) -> Any:
    """The shipped FINs; nothing here trains them."""
    if family == "dense" and length != (own := folders.card(presets.find("fin_dense"))["length"]):
        raise ValueError(f"`family` must be \"conv\" or \"bilstm\" for windows of {length} samples: the shipped dense "
                         f"FINs take {own}")
    return presets.shared_bank(recipes.Fin(family=family), features, length, channels)
