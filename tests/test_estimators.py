"""scikit-learn's own checks of estimators, run on windows (N, C, L): each value of a sample becomes a channel."""

import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import SkipTestWarning
from sklearn.utils import estimator_checks as checks

import tfkfin
from tfkfin.base.errors import InputError

SPARSE = "sparse arrays have two axes"
TWO = "takes `n_samples, n_features = X.shape`, or reshapes a sample to (1, n_features)"
NOT_ON_WINDOWS = {  # what presupposes two-dimensional input, and where
    "check_estimator_sparse_tag": SPARSE, "check_estimator_sparse_array": SPARSE,
    "check_estimator_sparse_matrix": SPARSE, "check_transformer_data_not_an_array": TWO,
    "check_transformer_general": TWO, "check_methods_subset_invariance": TWO,
    "check_classifier_data_not_an_array": "puts X into a pandas.DataFrame, which has two axes",
    "check_array_api_input": "no array API: this estimator computes in NumPy and TensorFlow",
}
ESTIMATORS = (tfkfin.FINFeatures(("RMS", "VAR")), tfkfin.FINClassifier(("RMS", "VAR")),
              tfkfin.FINClassifier(("RMS", "VAR"), head="linear"))
CARRIER = np.random.default_rng(0).normal(size=16)  # of all channels; the value of a sample is its window's offset


@pytest.fixture
def on_windows(monkeypatch):
    """Lets checks give windows: (N, C) -> (N, C, L), a label that was a column of X stays one number a sample."""
    labels, equal = checks._enforce_estimator_tags_y, checks.assert_allclose_dense_sparse

    def windows(estimator, X, X_test=None, kernel=None):
        made = [None if x is None else np.asarray(x)[..., None] + CARRIER for x in (X, X_test)]
        return made[0] if X_test is None else tuple(made)

    monkeypatch.setattr(checks, "_enforce_estimator_tags_X", windows)
    monkeypatch.setattr(checks, "_enforce_estimator_tags_y",
                        lambda estimator, y: labels(estimator, y[:, 0] if y.shape[1:] == CARRIER.shape else y))
    monkeypatch.setattr(checks, "assert_allclose_dense_sparse",  # FINs compute in float32, in any order of threads
                        lambda x, y, rtol=0, atol=0, err_msg="": equal(x, y, rtol=1e-5, atol=1e-6, err_msg=err_msg))
    for kind in {type(estimator) for estimator in ESTIMATORS}:  # without two axes no check is run at all
        own = kind.__sklearn_tags__

        def tags(self, own=own):
            found = own(self)
            found.input_tags.two_d_array = True
            return found

        monkeypatch.setattr(kind, "__sklearn_tags__", tags)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_every_check_that_does_not_presuppose_two_axes_passes(estimator, on_windows):
    every, failed = list(checks._yield_all_checks(estimator, legacy=True)), {}
    names = [getattr(check, "func", check).__name__ for check in every]
    assert len(names) > 40
    for name, check in zip(names, every, strict=True):
        if name not in NOT_ON_WINDOWS:
            with warnings.catch_warnings():
                warnings.simplefilter("error", SkipTestWarning)
                try:
                    check(type(estimator).__name__, clone(estimator))
                except Exception as error:  # all that fail are told together
                    failed[name] = repr(error)[:300]
    assert not failed, '\n'.join(f'{a}: {b}' for a, b in failed.items())


def test_nothing_is_listed_that_is_no_check(on_windows):
    names = {getattr(check, "func", check).__name__ for estimator in ESTIMATORS
             for check in checks._yield_all_checks(estimator, legacy=True)}
    assert names >= set(NOT_ON_WINDOWS)


def windows(count=40, seed=0):
    """Windows (N, C, L) of two classes that differ in loudness, and their labels."""
    rng, y = np.random.default_rng(seed), np.arange(count) % 2
    return rng.normal(size=(count, 3, 24)) * (1 + y)[:, None, None], np.array(["fist", "rest"])[y]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_saved_without_pickle_it_is_the_same(estimator, tmp_path):
    X, y = windows()
    fitted = clone(estimator).fit(X, y)
    fitted.save(tmp_path / "kept")
    assert {path.suffix for path in (tmp_path / "kept").iterdir()} <= {".json", ".keras"}
    again = type(estimator).load(tmp_path / "kept")
    act = "predict_proba" if hasattr(fitted, "predict_proba") else "transform"
    np.testing.assert_array_equal(getattr(again, act)(X), getattr(fitted, act)(X))
    assert again.get_params() == fitted.get_params() and again.n_features_in_ == 3
    with pytest.raises(InputError, match="never overwritten"):
        fitted.save(tmp_path / "kept")
    with pytest.raises(InputError, match="holds no"):
        type(estimator).load(tmp_path)


@pytest.mark.parametrize(("change", "said"), [
    ({"features": ("RMS", "MAV")}, "MAV"), ({"features": ()}, "empty"), ({"family": "lstm"}, "one of"),
    ({"head": "conv"}, "solved"), ({"head": "tree"}, "there are"), ({"describe": ("colour",)}, "there are"),
    ({"family": "dense"}, "windows of 24 samples"),
])
def test_unfit_parameters_are_said(change, said):
    with pytest.raises(ValueError, match=said):
        tfkfin.FINClassifier(**change).fit(*windows())


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_swapped_axes_are_refused_before_anything_is_computed(estimator):
    """(N, L, C), as Keras has windows: 600 channels would ask for hundreds of GB."""
    X, y = windows()
    other, fitted = np.moveaxis(X, 1, 2), clone(estimator).fit(X, y)
    act = fitted.predict if hasattr(fitted, "predict") else fitted.transform
    for call in (lambda: clone(estimator).fit(np.zeros((40, 600, 10)), y), lambda: act(other)):
        with pytest.raises(ValueError, match=r"turn it with np\.moveaxis\(X, 1, 2\)"):
            call()
    np.testing.assert_array_equal(act(np.moveaxis(other, 1, 2)), act(X))


def test_sessions_must_be_one_a_window():
    X, y = windows()
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        tfkfin.FINClassifier(("RMS",)).fit(X, y, sessions=np.zeros(3))
    by_name = tfkfin.FINClassifier(("RMS",)).fit(X, y, sessions=np.where(np.arange(len(y)) < 20, "one", "two"))
    by_number = tfkfin.FINClassifier(("RMS",)).fit(X, y, sessions=np.arange(len(y)) // 20)
    np.testing.assert_array_equal(by_name.predict_proba(X), by_number.predict_proba(X))
