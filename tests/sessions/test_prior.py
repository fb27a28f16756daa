"""The prior against NumPy, scikit-learn, averages over every permutation; trust; what files keep of it."""

import itertools

import numpy as np
import pytest
from drawn_sessions import EACH, LATER, PRIOR, D, G, joined, session
from sklearn.covariance import ledoit_wolf

from tfkfin.features import describe
from tfkfin.sessions.prior import KERNEL_CORRELATION, SessionPrior, class_kernel, exchangeable
from tfkfin.sessions.statistics import SessionStatistics

LAYOUT = np.array([(0, d, d) for d in range(D)])


def test_classes_apart_move_alone_and_one_class_or_equal_ones_are_no_fault():
    far = class_kernel(np.array([[0.0], [1e-3], [100.0], [200.0]]))
    np.testing.assert_allclose(far[0, 1], KERNEL_CORRELATION, atol=1e-6)
    assert far[0, 3] < far[0, 2] < far[0, 1] and np.linalg.eigvalsh(far).min() > 0
    assert (class_kernel(np.ones((1, 2))) == 1).all() and (class_kernel(np.ones((3, 2))) == np.eye(3)).all()


def described(windows):
    """Mean amplitude of each channel and log-covariances: (N, L, C) -> (N, C + C (C + 1) / 2)."""
    return np.concatenate([np.abs(windows).mean(axis=1), describe.tangent_space(windows, 1000.0)], axis=1)


def test_exchangeable_is_the_mean_over_every_permutation_of_real_descriptions():
    channels, rng = 4, np.random.default_rng(0)
    windows = rng.normal(size=(60, 80, channels)) @ rng.normal(size=(channels, channels))
    x = described(windows)
    sample = np.cov(x, rowvar=False)
    turned = []
    for order in itertools.permutations(range(channels)):
        turned.append(np.cov(described(windows[..., list(order)]), rowvar=False))
    first, second = np.triu_indices(channels)
    layout = [*((0, c, c) for c in range(channels)), *zip(1 + (first != second), first, second, strict=True)]
    found = exchangeable(sample, np.array(layout))
    np.testing.assert_allclose(found, np.mean(turned, axis=0), rtol=1e-8, atol=1e-10)
    assert np.linalg.eigvalsh(found).min() > -1e-9 * np.linalg.eigvalsh(found).max()


@pytest.mark.parametrize("repetitions, few", [(2, True), (80, False)])
def test_electrodes_are_exchangeable_where_repetitions_are_few(repetitions, few):
    """Then every electrode's variance between repetitions is near the mean of all; of many each has its own."""
    x, *rest = joined([session(100 + s, repetitions=repetitions) for s in range(2)])
    x = x + np.where(np.arange(D) == 0, 1, 0) * np.random.default_rng(0).normal(
        0, 3, (len(x) // EACH, 1)).repeat(EACH, axis=0)  # the first electrode differs more between repetitions
    plain, even = (SessionPrior().fit(x, *rest, (), layout) for layout in (None, LAYOUT))
    mean = np.full(D, np.trace(plain.repetition) / D)
    apart = [np.abs(np.diag(prior.repetition) - mean).max() for prior in (plain, even)]
    assert apart[1] < 0.1 * apart[0] if few else 0.5 * apart[0] < apart[1]
    np.testing.assert_allclose(np.trace(even.repetition), np.trace(plain.repetition))


def test_sessions_that_do_not_predict_each_other_are_not_trusted():
    assert not SessionPrior().fit(*joined([session(s, days=6.0) for s in range(6)])).trusted
    one = SessionPrior().fit(*joined([session(0)]))
    assert not one.trusted and not one.between.any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("trusted", [True, False])
def test_trust_is_what_movements_of_several_sessions_say(count, trusted):
    """A movement that one session alone has, or lacks, says nothing; in the second session two others change places."""
    parts = [session(100 + s, days=0.2) for s in range(count)]
    if not trusted:
        x, labels, r = parts[1]
        parts[1] = x, np.array([0, 2, 1, 3])[labels], r
    less = [without(part, G) for part in parts]
    for some in (parts, less, [parts[0], *less[1:]], [less[0], *parts[1:]]):
        assert SessionPrior().fit(*joined(some)).trusted == trusted
    nothing_common = [less[0], *(without(without(part, 1), 2) for part in parts[1:])]
    if count == 2:
        assert not SessionPrior().fit(*joined(nothing_common)).trusted


def unequal(part):
    """The same with executions of 20, 18, ... windows, so that a mean over windows is none over executions."""
    length, place = np.array([20, 18, 15, 11, 6, 3]), np.arange(len(part[0])) % EACH
    kept = place < length[(np.arange(len(part[0])) // EACH) % len(length)]
    return tuple(column[kept] for column in part)


def without(part, movement):
    x, labels, r = part
    return x[labels != movement], labels[labels != movement], r[labels != movement]


def test_virtual_forces_widen_and_shift():
    x, labels, sessions, r = joined([session(100 + s) for s in range(3)])
    plain = SessionPrior().fit(x, labels, sessions, r)
    same, away = (SessionPrior().fit(x, labels, sessions, r, [x + step, x - step]) for step in (0.0, 2.0))
    np.testing.assert_allclose(same.shift, 0, atol=1e-12)
    assert np.trace(away.within) > np.trace(plain.within)
    moved = SessionPrior().fit(x, labels, sessions, r, [x + 1.0])  # the means of half of all windows move by 1
    np.testing.assert_allclose(moved.shift, 0.25 * 0.5 * np.tile(np.mean(1 / moved.statistics.sds, axis=0), (G, 1)))


@pytest.mark.parametrize("virtual", [False, True])
@pytest.mark.parametrize("layout", [None, LAYOUT])
def test_a_session_added_after_a_file_is_as_if_it_had_been_among_the_first(virtual, layout):
    """With and without virtual forces and exchangeable electrodes; without new ones the virtual forces go on."""
    x, labels, sessions, r = joined([session(100 + s, repetitions=2) for s in range(4)])
    forces = [0.5 * x, 1.5 * x] if virtual else []
    first, last = sessions < 3, sessions == 3
    whole = SessionPrior().fit(x, labels, sessions, r, forces, layout)
    prior = SessionPrior().fit(x[first], labels[first], sessions[first], r[first], [f[first] for f in forces], layout)
    kept = SessionPrior.from_state(prior.state(), SessionStatistics.from_arrays(prior.statistics.arrays()))
    for before in (prior, kept):
        after = before.add_session(x[last], labels[last], r[last], [f[last] for f in forces]).state()
        for name, value in whole.state().items():
            np.testing.assert_allclose(after[name], value, atol=1e-12, err_msg=name)
    later = kept.add_session(x[last], labels[last], r[last])
    np.testing.assert_array_equal(later.shift, prior.shift)
    assert later.shift.any() == virtual and np.array_equal(later.within, later.within_recorded) != virtual


def test_a_session_more_is_what_all_windows_at_once_give():
    """Everything that is estimated, by NumPy and scikit-learn from all windows of all sessions."""
    parts = [unequal(session(100 + s, repetitions=3)) for s in range(4)]
    parts[3] = tuple(part[(parts[3][2] == 0) & (parts[3][1] != 2)] for part in parts[3])  # as one is calibrated for
    prior = SessionPrior().fit(*joined(parts[:3]))
    before = {name: value.copy() for name, value in prior.state().items()}
    kept = SessionPrior.from_state(before, SessionStatistics.from_arrays(prior.statistics.arrays()))
    more = kept.add_session(*parts[3])
    within, repeated, means, sizes = [], [], np.full((4, G, D), np.nan), []
    for s, (x, y, r) in enumerate(parts):
        z = (x - x.mean(axis=0)) / x.std(axis=0)
        for c in np.unique(y):
            each = [z[(y == c) & (r == one)] for one in np.unique(r)]
            of_each = [rows.mean(axis=0) for rows in each]
            means[s, c - 1] = np.mean(of_each, axis=0)
            within += [row - mean for rows, mean in zip(each, of_each, strict=True) for row in rows]
            if len(each) > 1:
                repeated += [(mean - means[s, c - 1]) * np.sqrt(len(each) / (len(each) - 1)) for mean in of_each]
            sizes += [len(rows) for rows in each]
    between = ((means - np.nanmean(means, axis=0)) * np.sqrt(4 / 3)).reshape(-1, D)
    between = between[np.isfinite(between).all(axis=1)]
    for found, rows in ((more.within, within), (more.repetition, repeated), (more.between, between)):
        np.testing.assert_allclose(found, ledoit_wolf(np.array(rows), assume_centered=True)[0], atol=1e-8)
    np.testing.assert_allclose(more.means, np.nanmean(means, axis=0), atol=1e-8)
    np.testing.assert_allclose(more.centre, np.mean([x.mean(axis=0) for x, _, _ in parts], axis=0))
    np.testing.assert_allclose(more.sd, np.mean([x.std(axis=0) for x, _, _ in parts], axis=0), rtol=1e-6)
    assert more.sessions == 4 and more.repetition_windows == pytest.approx(np.mean(sizes))
    assert all(np.array_equal(prior.state()[name], value) for name, value in before.items())  # it stays as it was


def test_names_in_files_stay():
    """Those of decoders that were saved before there were virtual forces and layouts in files."""
    assert set(PRIOR.state()) == {"classes", "sessions", "means", "shift", "within", "looks", "repeated", "between",
                                  "centre", "spread", "execution", "trusted"}
    assert set(PRIOR.statistics.arrays()) == {
        "means", "centres", "spreads", "executions", "within_count", "within_squares", "within_fourth",
        "repeated_count", "repeated_squares", "repeated_fourth"}


def test_a_state_without_statistics_takes_no_session():
    with pytest.raises(ValueError, match="fit anew"):
        SessionPrior.from_state(PRIOR.state()).add_session(*LATER[0])
