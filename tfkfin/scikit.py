"""FINs by scikit-learn's rules: windows (N, C, L), as braindecode and pyRiemann lay them, in pipelines and searches."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from tfkfin import recipe as recipes
from tfkfin.models import decoder, presets

CHUNK = 256  # windows in the network at a time


class _OfWindows(BaseEstimator):
    """What both share: parameters, checks, and the network's parts."""

    def __init__(self, features=("ENT", "RMS", "VAR", "SSI"), family="conv"):
        self.features = features
        self.family = family

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags

    def _windows(self, X, y="no_validation", reset: bool = False):
        """Checked windows (N, L, C) float64, and labels where there are some."""
        checked = validate_data(self, X, y, reset=reset, allow_nd=True, ensure_2d=False, dtype=np.float64)
        X, y = (checked, None) if isinstance(y, str) else checked
        if X.ndim != 3:
            raise ValueError(f"`X` must be windows (N, C, L). Received: shape {X.shape}")
        if not reset and X.shape[1:] != self.shape_:
            raise ValueError(f"`X` must be (N, {self.shape_[0]}, {self.shape_[1]}), as in `fit`. Received: shape "
                             f"{X.shape}")
        return X.transpose(0, 2, 1), y

    def _learn_scale(self, x: np.ndarray) -> None:
        self.shape_, self.n_features_in_ = (x.shape[2], x.shape[1]), x.shape[2]
        self.mean_, sd = x.mean(axis=(0, 1)), x.std(axis=(0, 1))
        self.sd_ = np.where(sd > 0, sd, 1.0)

    def _bank(self):
        options = recipes.Fin(family=self.family)
        return presets.new_bank(options, tuple(self.features), self.shape_[1], self.shape_[0])


class FINFeatures(TransformerMixin, _OfWindows):
    """Imitated features of windows, each channel standardised by the windows it was fitted to.

    Shipped FINs are trained on 600 samples at 2 kHz (300 ms); at other lengths what they imitate is approximate.

    Args:
        features: of ENT, RMS, VAR, SSI.
        family: "conv", "dense" or "bilstm".

    Attributes:
        mean_, sd_: (C,) of the windows fitted to. shape_: (C, L).

    Example: `make_pipeline(FINFeatures(), StandardScaler(), LinearDiscriminantAnalysis())`.
    """

    def fit(self, X, y=None):
        """X: windows (N, C, L) in any unit."""
        x, _ = self._windows(X, reset=True)
        self._learn_scale(x)
        return self

    def transform(self, X) -> np.ndarray:
        """Windows (N, C, L) -> (N, C F), features of the standardised signal, channel by channel."""
        check_is_fitted(self)
        x, bank = (self._windows(X)[0] - self.mean_) / self.sd_, self._bank()
        parts = [np.asarray(bank(x[i : i + CHUNK].astype(np.float32), training=False)) for i in range(0, len(x), CHUNK)]
        return np.concatenate(parts).reshape(len(x), -1).astype(np.float64)

    def get_feature_names_out(self, input_features=None) -> np.ndarray:
        check_is_fitted(self)
        return np.array([f"{name}_{channel}" for channel in range(self.shape_[0]) for name in self.features], object)


class FINClassifier(ClassifierMixin, _OfWindows):
    """FINs and a head that is solved in closed form, as in the recipe `best`.

    Args:
        features, family: as of `FINFeatures`.
        head: "gaussian", which tells sessions from each other (give them to `fit`), or "linear".
        describe: what the head sees beside features: "correlations", "log_covariance".

    Attributes:
        classes_: (G,). model_: the network, windows (B, L, C) -> {"probabilities", "features"}. mean_, sd_, shape_: as
        of `FINFeatures`.

    Example: `cross_val_score(FINClassifier(), X, y, groups=repetition, cv=LeaveOneGroupOut())`.
    """

    def __init__(self, features=("ENT", "RMS", "VAR", "SSI"), family="conv", head="gaussian",
                 describe=("correlations", "log_covariance")):
        super().__init__(features, family)
        self.head = head
        self.describe = describe

    def fit(self, X, y, sessions=None, repetitions=None):
        """X: windows (N, C, L) in any unit; y: labels (N,); sessions and repetitions (N,): 0 where none are given."""
        from tfkfin.models import heads

        x, y = self._windows(X, y, reset=True)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"`y` must hold 2 classes or more. Received: one class, {self.classes_[0]!r}")
        self._learn_scale(x)
        options = recipes.Classifier(kind=self.head, describe=tuple(self.describe))
        if (kind := heads.kind(self.head)).solve is None:
            raise ValueError(f"`head` must be one that is solved. Received: head={self.head!r}")
        channels, length = self.shape_
        head = heads.new(options, tuple(self.features), length, channels, len(self.classes_))
        self.model_ = decoder.network(self._bank(), head)
        self.model_.get_layer("standardise").set(self.mean_, self.sd_)
        groups = tuple(np.zeros(len(y), int) if g is None else np.asarray(g) for g in (sessions, repetitions))
        kind.solve(head.get_layer("classifier"), self._seen(x), index, groups)
        return self

    def predict_proba(self, X) -> np.ndarray:
        """Windows (N, C, L) -> (N, G)."""
        check_is_fitted(self)
        x = self._windows(X)[0].astype(np.float32)
        parts = [np.asarray(self.model_(x[i : i + CHUNK], training=False)["probabilities"])
                 for i in range(0, len(x), CHUNK)]
        return np.concatenate(parts).astype(np.float64)

    def predict(self, X) -> np.ndarray:
        """Windows (N, C, L) -> labels (N,)."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def _seen(self, x: np.ndarray) -> list[np.ndarray]:
        from tfkfin.models import heads

        standardise, bank = self.model_.get_layer("standardise"), self.model_.get_layer("fins")
        describe, parts = heads.describer(self.model_.get_layer("head")), []
        for i in range(0, len(x), CHUNK):
            windows = standardise(x[i : i + CHUNK].astype(np.float32))
            parts.append([np.asarray(part(windows, training=False)) for part in (bank, describe)])
        return [np.concatenate(one) for one in zip(*parts, strict=True)]
