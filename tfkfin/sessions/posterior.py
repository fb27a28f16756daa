"""The posterior: a session's class means, z-score and decisions, given labelled windows, unlabelled ones, or none.

Symbols are those of `prior`. All windows of class g that are labelled give one mean y_g, of n_g repetitions' worth:

    y_g | u_g ~ N(u_g, N / n_g)    n_g = 1 where windows of g are labelled, 0 where none are

In direction i of the basis, with a_g = U_i' (y_g - M_g), S = diag(sqrt n_g) and R = (I + l_i S K S)^-1, the posterior
of U_i' (u - M) over classes is the Gaussian conditioned on a:

    mean      l_i K S R S a
    variance  diag(l_i K - l_i^2 K S R S K)

S K S has the same eigenvectors in all directions, so that one decomposition (G, G) serves all. A class without windows
moves with those that K couples it to. After one session alone B is not known: then B = l N, l = max(mean a^2 - 1, 0).

Unlabelled windows (EM). E step: with scores s_n (G,) of the linear decision, log-odds summed over neighbours in time,

    p_n = softmax(f sum_{|m - n| <= k} (s_m - max s_m))

M step: y_g = sum_n p_ng z_n / sum_n p_ng counts as n_g = t min(sum_n p_ng / windows of a repetition, r) repetitions,
beside those of labelled windows; then the posterior above. Without labels a class mean moves at most `MAX_MEAN_SHIFT`
sds between sessions, sqrt(mean_i (U_i' (u - M))^2 / l_i), and none moves unless the prior is `trusted` and the windows
lie near its classes (`SessionPrior.distance`).

Decision. Linear: all classes have the covariance W + T + V, with V the posterior covariance of class means, mean over
classes (in labelled sessions W is half the session's own):

    scores s = A' z + b    A = (W + T + V)^-1 (u + shift)'    b_g = -1/2 (u_g + shift_g)' A_g    z = (x - c) / d

Centring. c and d are the windows' mean and sd (sigma) if all classes are there. If a share m of classes is missing,
windows of the others lie elsewhere, and less far apart. The prior says by how much: for shares p_g of classes

    e(p) = sum_g p_g M_g     v(p) = diag W + sum_g p_g (M_g - e(p))^2 + (1 - sum_g p_g^2) diag(T + B)

With p of the windows at hand, q of equal shares, N windows, k = k0 m^3, h = G (1 - m), and start values c0, d0:

    d^2 = (N sigma^2 / (v(p) / v(q))^m + k1 k d0^2) / (N + k1 k)
    c   = (h (mean - m d (e(p) - e(q))) + k c0) / (h + k)

m = 1 - (classes with labels) / G, or without labels 1 - exp(entropy of p) / G. `recentre` does it for windows that come
one after another, from the start values (c0, d0, counting as n0 windows): with weights w_n = sum_g p_ng min(1, r
repetitions / sum_n p_ng), so that a class that is held for long does not draw the centre to itself,

    c = (n0 c0 + sum w x) / (n0 + sum w)    d^2 = (n0 (d0^2 + c0^2) + sum w x^2) / (n0 + sum w) - c^2

Constants marked [dev]: as in `prior`.
"""

import numpy as np

from tfkfin.sessions.prior import TRUST_SHARE, SessionPrior
from tfkfin.sessions.statistics import EPSILON, ClassMoments

# EM
ITERATIONS = 4  # EM updates of a block of unlabelled windows; more change little
SOFTNESS = 0.3  # f, factor of log-odds: neighbouring windows overlap, they are no independent evidence [dev]
NEIGHBOURS = 7  # k, windows to either side whose log-odds are summed [dev]
MIN_LOG_ODDS = -30.0  # of one window: no single one can rule a class out for its neighbours
SOFT_WEIGHT = 0.7  # t, weight of windows with soft labels, beside labelled ones [dev]
MAX_REPETITIONS = 2.0  # r, repetitions of a class that unlabelled windows count as at most [dev]
MAX_PAST = 4000  # latest unlabelled windows that are kept for EM: 200 s at 50 ms
# Bounds without labels
MAX_DISTANCE = 0.75  # `SessionPrior.distance` beyond which windows move no class mean [dev]
MAX_MEAN_SHIFT = 2.0  # of a class mean, in sds between sessions
MAX_CENTRE_SHIFT = 5.0  # of c from where the session started, in sds d0
MAX_SD_RATIO = 20.0  # of d to d0, or d0 to d
# Centring
MISSING_CLASSES = 4.0  # k0, classes that c0 counts as where nearly all are missing [dev]
MISSING_WINDOWS = 50.0  # k1, windows of each of these that d0 counts as [dev]
START_WINDOWS = 50.0  # n0 of the prior's c0 and d0 [dev]
OWN_WITHIN = 0.5  # share of a labelled session's own W [dev]
CARRIED_SHARE = 0.25  # of the way from the prior to an unlabelled session that the next session starts at [dev]


def softmax(scores: np.ndarray) -> np.ndarray:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def missing_share(counts: np.ndarray) -> float:
    """m, estimated share of classes that are missing, from windows a class (G,): 1 - exp(entropy) / G."""
    share = counts / counts.sum()
    return float(1 - np.exp(-(share * np.log(share + 1e-12)).sum()) / len(share))


def class_mean_posterior(apart: np.ndarray, counts: np.ndarray, variances: np.ndarray,
                         kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior of class means about the prior's, in the basis.

    Args:
        apart: a (G, D); where a count is 0 it counts for nothing.
        counts: n_g (G,), repetitions.
        variances: l (D,); kernel: K (G, G).

    Returns:
        Its mean (G, D), and its variance, mean over classes (D,).
    """
    root = np.sqrt(counts)[:, None]
    eigenvalues, vectors = np.linalg.eigh(root * kernel * root.T)  # of S K S
    shrink, across = 1 / (1 + np.maximum(eigenvalues, 0)[:, None] * variances), (kernel * root.T) @ vectors
    mean = variances * (across @ (shrink * (vectors.T @ (root * apart))))
    variance = np.diag(kernel)[:, None] * variances - variances**2 * (across**2 @ shrink)
    return mean, np.maximum(variance, 0).mean(axis=0)


class SessionPosterior:
    """A session that begins as the prior says; `update`, `adapt` or online adaptation (`online`) change it.

    Attributes:
        prior: M, W, T, B, K and what else is known before.
        centre, sd: c and d now (D,); start: c0, d0 and n0.
        means: class means u now (G, D); means_covariance: V (D, D).
        weights, bias: A (D, G) and b (G,) of the linear decision.
    """

    def __init__(self, prior: SessionPrior):
        self.prior, self._variances = prior, prior.basis.variances
        self.centre, self.sd = prior.centre, prior.sd
        self.start = prior.centre, prior.sd, START_WINDOWS
        self._within = prior.within
        self._labelled: tuple[np.ndarray, np.ndarray] | None = None  # y (G, D) and n (G,) of labelled windows
        self._as_predicted: bool | None = None  # whether the prior decides the labelled means right, once it is known
        self._moments = ClassMoments(*prior.means.shape)
        self._past = np.empty((0, len(prior.centre)))  # unlabelled windows, z-scored as now
        self._reset_means()

    # === Evidence ===

    def update(self, x: np.ndarray, labels: np.ndarray) -> "SessionPosterior":
        """Takes in labelled windows (N, D) of this session, changes it, returns it.

        Exact: after any number of updates it is as after one with all windows, since it depends on their moments alone.
        """
        prior, moments, centre, sd = self.prior, self._moments, self.centre, self.sd
        moments.add(x, np.searchsorted(prior.classes, labels))
        counts = (moments.counts > 0).astype(float)
        self.centre, self.sd = self._centred(*moments.total(), moments.counts, 1 - counts.mean())
        self._past = (self._past * sd + centre - self.centre) / self.sd
        self.start = self.centre, self.sd, moments.counts.sum()
        means, own_within = moments.z_scored(self.centre, self.sd)
        if prior.sessions == 1:
            apart = (means - prior.means)[counts > 0] @ prior.basis.vectors
            self._variances = np.full(len(centre), max(float(np.mean(apart**2)) - 1, 0.0))
        self._labelled = np.where(counts[:, None] > 0, means, prior.means), counts
        self._as_predicted = None
        self._within = (1 - OWN_WITHIN) * prior.within + OWN_WITHIN * own_within
        return self._set_means(*self._labelled)

    def adapt(self, x: np.ndarray) -> "SessionPosterior":
        """Takes in all windows (N, D), in order of time and without labels, that a new session is to be adapted to.

        Changes it, within the bounds of the module's constants, and returns it.
        """
        mean, variance, classes = x.mean(axis=0), x.var(axis=0), len(self.prior.classes)
        counts = np.full(classes, len(x) / classes)
        for i in range(1 + ITERATIONS):  # at first all classes are taken to be there alike
            soft = self._soft_labels() if i else None
            counts = counts if soft is None else soft.sum(axis=0)
            self.centre, self.sd = self._bounded(*self._centred(mean, variance, counts, missing_share(counts)))
            self._past = (x - self.centre) / self.sd
            if soft is not None and self.prior.trusted:
                self._em_step(soft)
        if self.moved and self.prior.distance(self._past) > MAX_DISTANCE:
            self._reset_means()
        self.start = self.centre, self.sd, len(x)
        return self

    def append(self, x: np.ndarray) -> None:
        """Adds unlabelled windows (N, D) to those that `recentre` and `em_update` go by."""
        self._past = np.concatenate([self._past, (x - self.centre) / self.sd])[-MAX_PAST:]

    def recentre(self, latest: int) -> None:
        """Moves the z-score by so many of the latest unlabelled windows.

        Where labels gave the z-score it stays, unless the prior is trusted and decides their class means right.
        """
        if not latest or not self._may_recentre():
            return
        past, soft = self._past[-latest:], self._soft_labels()[-latest:]
        longest = MAX_REPETITIONS * self.prior.repetition_windows
        weights = soft @ np.minimum(1, longest / (soft.sum(axis=0) + EPSILON))
        x, (mean, sd, count) = past * self.sd + self.centre, self.start
        total = count + weights.sum()
        centre = (count * mean + weights @ x) / total
        square = (count * (sd**2 + mean**2) + weights @ x**2) / total
        centre, sd = self._bounded(centre, np.sqrt(np.maximum(square - centre**2, 0)))
        self._past = (self._past * self.sd + self.centre - centre) / sd
        self.centre, self.sd = centre, sd

    def em_update(self) -> None:
        """Moves class means by the unlabelled windows, if the prior is trusted and they lie near its classes."""
        if self.prior.trusted and len(self._past) and self.prior.distance(self._past) <= MAX_DISTANCE:
            self._em_step(self._soft_labels())

    # === Decisions ===

    @property
    def moved(self) -> bool:
        """Whether class means have moved, not the z-score alone."""
        return bool((self.means != self.prior.means).any())

    def linear(self) -> tuple[np.ndarray, ...]:
        """What decides now: c and d (D,), then A (D, G) and b (G,)."""
        return self.centre, self.sd, self.weights, self.bias

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Windows (N, D) of the session, each decided by itself -> (N, G)."""
        return softmax((x - self.centre) / self.sd @ self.weights + self.bias)

    def next_prior(self) -> SessionPrior:
        """The prior of the session after this one, of which no label was known: moved `CARRIED_SHARE` of the way."""
        return self.prior.interpolated(CARRIED_SHARE, means=self.means, centre=self.centre, sd=self.sd)

    # === z-score ===

    def _centred(self, mean: np.ndarray, variance: np.ndarray, counts: np.ndarray,
                 missing: float) -> tuple[np.ndarray, np.ndarray]:
        """c and d (D,) from the mean and variance of windows (D,), windows of each class (G,), and m."""
        prior, total, few = self.prior, counts.sum(), MISSING_CLASSES * missing**3
        apart = (prior.repetition + prior.between).diagonal()
        e, v = [], []
        for share in (counts / total, np.full(len(counts), 1 / len(counts))):  # p, q
            e.append(share @ prior.means)
            v.append(prior.within_recorded.diagonal() + share @ (prior.means - e[-1]) ** 2
                     + (1 - share @ share) * apart)
        ratio, windows = (v[0] / v[1]) ** missing, MISSING_WINDOWS * few
        sd = np.sqrt((total * variance / ratio + windows * prior.sd**2) / (total + windows)) + EPSILON
        there = len(counts) * (1 - missing)
        return (there * (mean - missing * sd * (e[0] - e[1])) + few * prior.centre) / (there + few), sd

    def _bounded(self, centre: np.ndarray, sd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """No farther from the prior's c0 and d0, or those that labels gave, than the bounds allow."""
        start, start_sd = (self.prior.centre, self.prior.sd) if self._labelled is None else self.start[:2]
        reach = MAX_CENTRE_SHIFT * start_sd
        return (np.clip(centre, start - reach, start + reach),
                np.clip(sd, start_sd / MAX_SD_RATIO, start_sd * MAX_SD_RATIO))

    def _may_recentre(self) -> bool:
        """Whether the z-score may move: no labels gave it, or the prior is trusted and decides their means right."""
        if self._labelled is None:
            return True
        if self._as_predicted is None:
            means, counts = self._labelled
            right = self.prior.decided_right(np.where(counts[:, None] > 0, means, np.nan), self.prior.means)
            self._as_predicted = bool(self.prior.trusted and right.mean() >= TRUST_SHARE)
        return self._as_predicted

    # === Class means ===

    def _soft_labels(self) -> np.ndarray:
        """E step: p (N, G) of the unlabelled windows."""
        at = np.arange(len(self._past))
        low, high = np.maximum(at - NEIGHBOURS, 0), np.minimum(at + NEIGHBOURS + 1, len(at))
        scores = self._past @ self.weights + self.bias
        scores = np.maximum(scores - scores.max(axis=1, keepdims=True), MIN_LOG_ODDS)
        sums = np.concatenate([np.zeros((1, scores.shape[1])), np.cumsum(scores, axis=0)])
        return softmax(SOFTNESS * (sums[high] - sums[low]))

    def _em_step(self, soft: np.ndarray) -> None:
        """M step from soft labels (N, G), and from labelled windows if there are any."""
        prior, weight = self.prior, soft.sum(axis=0) + EPSILON
        means = soft.T @ self._past / weight[:, None]
        counts = SOFT_WEIGHT * np.minimum(weight / prior.repetition_windows, MAX_REPETITIONS)
        if self._labelled is None:
            self._set_means(means, counts, MAX_MEAN_SHIFT)
        else:  # as far as labels say
            own, each = self._labelled
            total = counts + each
            self._set_means((counts[:, None] * means + each[:, None] * own) / total[:, None], total)

    def _set_means(self, means: np.ndarray, counts: np.ndarray, longest: float = np.inf) -> "SessionPosterior":
        """Class means and V from y (G, D) and n (G,); none moves farther than `longest`, in sds between sessions."""
        variances, vectors, inverse = self._variances, self.prior.basis.vectors, self.prior.basis.inverse
        apart, left = class_mean_posterior((means - self.prior.means) @ vectors, counts, variances, self.prior.kernel)
        varies = variances > 0
        if varies.any() and longest < np.inf:
            shift = np.sqrt((apart[:, varies] ** 2 / variances[varies]).mean(axis=1))
            apart = apart * np.minimum(longest / (shift + EPSILON), 1)[:, None]
        self.means = self.prior.means + apart @ inverse.T
        if self._left is None or not np.array_equal(left, self._left):  # mostly as an update before: V costs D^3
            self.means_covariance, self._left = (inverse * left) @ inverse.T, left
        return self._solve()

    def _reset_means(self) -> None:
        """Class means as the prior says."""
        self.means, self.means_covariance, self._left = self.prior.means, self.prior.between, None
        self._solve()

    def _solve(self) -> "SessionPosterior":
        means = self.means + self.prior.shift
        self.weights = np.linalg.solve(self._within + self.prior.repetition + self.means_covariance, means.T)
        self.bias = -0.5 * (means.T * self.weights).sum(axis=0)
        return self
