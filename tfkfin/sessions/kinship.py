"""An earlier name of the layout that `SessionPrior.fit` takes, until the ladder's rows are decoders."""

import numpy as np


def alike(kinds, electrodes):
    return np.array([(kind, one[0], one[-1]) for kind, one in zip(kinds, electrodes, strict=True)])
