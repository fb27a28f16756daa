"""Recorded people: a session's other movements where one alone was shown, at other forces than were learnt."""

import numpy as np
import pytest

from tfkfin import recipe as recipes
from tfkfin.experiments.ladder import baselines, rungs
from tfkfin.experiments.ladder.rungs import cut
from tfkfin.recordings import readers
from tfkfin.sessions.posterior import MAX_MEAN_SHIFT, SessionPosterior
from tfkfin.sessions.prior import SessionPrior

LEARNT, LATER = (3, 5), (1, 4, 7)  # of eight: 40 and 60 %, then 20, 50 and 80 % of full force


@pytest.mark.real
def test_one_movement_costs_recorded_people_little(real_sets):
    """Mean over sessions and two movements, person 1: z-scored by one movement alone, most is lost."""
    folder = next((folder for folder in real_sets if folder.name == "intensity10"), None)
    if folder is None:
        pytest.skip("the set at several forces is not there")
    recipe, parts = recipes.load("ladder", {"window.rate_hz": 0}), {}
    for session in rungs.sessions(1, map(readers.read, readers.find(folder, (1,))), 4):
        windows = cut(session.recordings, recipe.window, recipe.filter, False)
        moving = windows.labels > 0
        parts[session.session] = tuple(part[moving] for part in (
            baselines.tdar_cov(windows.volts(), windows.rate_hz), windows.labels, windows.repetitions))
    x, y, r = (np.concatenate(part) for part in zip(*(parts[s] for s in LEARNT), strict=True))
    prior = SessionPrior().fit(x, y, np.repeat(LEARNT, [len(parts[s][0]) for s in LEARNT]), r)
    right = {"nothing": [], "plainly": [], "labelled": [], "unlabelled": []}
    for number in LATER:
        x, y, r = parts[number]
        for shown in prior.classes[[0, 3]]:
            own, rest = (r == r.min()) & (y == shown), r > r.min()
            centre, spread = x[own].mean(axis=0), x[own].std(axis=0) + 1e-9
            adapted = SessionPosterior(prior).adapt(x[own])
            apart = adapted.means - prior.means
            moves = np.sqrt(np.einsum("gd,de,ge->g", apart, np.linalg.inv(prior.between), apart) / apart.shape[1])
            assert prior.trusted and moves.max() <= MAX_MEAN_SHIFT * (1 + 1e-6)
            for name, found in (("nothing", SessionPosterior(prior).probabilities(x)),
                                ("plainly", SessionPosterior(prior).probabilities(
                                    prior.centre + prior.sd * (x - centre) / spread)),
                                ("labelled", SessionPosterior(prior).update(x[own], y[own]).probabilities(x)),
                                ("unlabelled", adapted.probabilities(x))):
                right[name].append(np.mean(prior.classes[found.argmax(axis=1)][rest] == y[rest]))
    mean = {name: np.mean(values) for name, values in right.items()}
    assert min(mean["labelled"], mean["unlabelled"]) > max(mean["plainly"] + 0.3, mean["nothing"] - 0.05)
