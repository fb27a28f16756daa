"""Classical classifiers on closed-form features, from scikit-learn."""

import numpy as np

# The field's usual features: Hudgins' four (1993) and autoregression of order 4 (Englehart, Hudgins 2003).
TIME_DOMAIN = ("MAV", "WL", "ZC", "SSC", "AR1", "AR2", "AR3", "AR4")


def flat(features: np.ndarray) -> np.ndarray:
    """(N, C, F) -> (N, C·F)."""
    return features.reshape(len(features), -1)


def svm():
    """Gaussian-kernel SVM on z-scored features (paper, Exp. 2, which names no constants).

    C = 10: with scikit-learn's default of 1 it loses about 7 points on held-out training repetitions of real people.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    return make_pipeline(StandardScaler(), SVC(kernel="rbf", C=10))


def predict(model, train: tuple[np.ndarray, np.ndarray], features: np.ndarray, max_train: int = 4000) -> np.ndarray:
    """Labels (N,) that a model gives, after fitting it on at most `max_train` evenly spaced windows.

    Neighbouring windows overlap by 97 %, so thinning them costs an SVM little and saves it a quadratic time.

    Args:
        model: scikit-learn classifier.
        train: features (M, C, F) and labels (M,) to fit.
        features: (N, C, F).
    """
    step = max(1, -(-len(train[1]) // max_train))
    model.fit(flat(train[0])[::step], train[1][::step])
    return model.predict(flat(features))


def accuracy(model, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray],
             max_train: int = 4000) -> float:
    """Share of test windows that a model gets right, fitted as by `predict`."""
    return float(np.mean(predict(model, train, test[0], max_train) == test[1]))
