"""Linear discriminant analysis, wherever the package needs one."""


def lda():
    """scikit-learn's, on z-scored inputs, covariance shrunk by Ledoit and Wolf's rule (2004)."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"))
