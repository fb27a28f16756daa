"""The ladder's rows: decoders that a user can make with `tfkfin.Decoder.from_preset`, and baselines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from tfkfin import recipe as recipes
from tfkfin.base.console import log
from tfkfin.base.errors import InputError
from tfkfin.base.files import shipped
from tfkfin.experiments.ladder import baselines
from tfkfin.experiments.ladder.baselines import Hierarchical, SessionLDA
from tfkfin.features import describe
from tfkfin.recipe import Recipe

RECOMMENDED = "best"  # the row that we recommend
# Windows that earlier sessions count as where a row is recentred on the way. benchmarks/recentring.py chooses them
# from PRIORS on training sessions alone: each of them is decided by a row that is trained on the person's others, or on
# other people where there is one session; the highest accuracy a window, mean over people, then over sets, is taken
# (BioPatRec, intensity10, wear30; up to 1.5 points above the other values).
PRIORS = (20, 50, 100, 200, 500)
PRIOR = {"tdar_lda_centred": 200, "tdar_cov_lda_centred": 200, "riemann_lda_centred": 200}


@dataclass(frozen=True)
class DecoderRow:
    """A `tfkfin.Decoder` of a preset with settings of its own; `adapts`: with online adaptation, in a session.

    `trained`: by gradients, which takes long, and is calibrated with labels only.
    """

    title: str
    preset: str
    settings: dict[str, Any] = field(default_factory=dict)
    adapts: bool = False
    trained: bool = False


@dataclass(frozen=True)
class BaselineRow:
    """An estimator on a description: windows (N, L, C) and their rate -> (N, ...)."""

    title: str
    describe: Callable
    estimator: Callable


ROWS: dict[str, DecoderRow | BaselineRow] = {
    "paper": DecoderRow("the paper's method, trained end to end", "own", trained=True),
    "paper_frozen": DecoderRow("the same, FINs frozen", "own", {"finetune.fin_learning_rate": 0}, trained=True),
    "best": DecoderRow("best, as fitted", "best"),
    "best_adapt": DecoderRow("best, adapting", "best", adapts=True),
    "best_fins": DecoderRow("FINs + covariances, as fitted", "best_fins"),
    "best_fins_adapt": DecoderRow("FINs + covariances, adapting", "best_fins", adapts=True),
    "no_fins": DecoderRow("the same without FINs, as fitted", "best_fins", {"features.names": []}),
    "no_fins_adapt": DecoderRow("the same without FINs, adapting", "best_fins", {"features.names": []}, True),
    "fins_alone": DecoderRow("FINs alone, as fitted", "best_fins", {"classifier.describe": []}),
    "fins_alone_adapt": DecoderRow("FINs alone, adapting", "best_fins", {"classifier.describe": []}, True),
    "closed_form": DecoderRow("closed form, as fitted", "closed_form"),
    "closed_form_adapt": DecoderRow("closed form, adapting", "closed_form", adapts=True),
    "tdar_lda": BaselineRow("TD+AR, LDA", describe.time_domain, SessionLDA),
    "tdar_lda_centred": BaselineRow("TD+AR, LDA, recentred", describe.time_domain, partial(
        SessionLDA, partial(baselines.ZScored, PRIOR["tdar_lda_centred"]))),
    "tdar_cov_lda": BaselineRow("TD+AR + log-covariance, LDA", baselines.tdar_cov, SessionLDA),
    "tdar_cov_lda_centred": BaselineRow("TD+AR + log-covariance, LDA, recentred", baselines.tdar_cov, partial(
        SessionLDA, partial(baselines.ZScored, PRIOR["tdar_cov_lda_centred"]))),
    "cov_lda": BaselineRow("log-covariance, LDA", describe.tangent_space, SessionLDA),
    "riemann_lda": BaselineRow("tangent space, LDA", baselines.covariances, partial(
        SessionLDA, baselines.TangentSpace)),
    "riemann_lda_centred": BaselineRow("tangent space, LDA, recentred", baselines.covariances, partial(
        SessionLDA, partial(baselines.RecentredTangentSpace, PRIOR["riemann_lda_centred"]))),
    "hierarchical": BaselineRow("TD+AR + log-covariance, hierarchical", baselines.tdar_cov, Hierarchical),
}

# What a recipe of the ladder says of all its decoders, and of those that are trained; whatever else it changes against
# the shipped recipe goes to all decoders too.
OF_ALL = ("seed", "window.length_ms", "window.stride_ms", "window.train_stride_ms", "window.rest", "fin.family")
OF_TRAINED = ("classify.", "finetune.")
PASSED = ("seed", "window.", "filter.", "features.", "fin.", "classifier.", "augment.", *OF_TRAINED)


@cache
def available() -> tuple[str, ...]:
    """The rows that can be made here."""
    there = {path.stem for path in shipped("pipelines").glob("*.toml")}
    names = [name for name, row in ROWS.items() if isinstance(row, BaselineRow) or row.preset in there]
    if baselines.riemann_installed():
        return tuple(names)
    log.info("ladder: pyriemann is not installed, so two rows are left out: pip install 'tfkfin[riemann]'")
    return tuple(name for name in names if not name.startswith("riemann"))


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """The rows of these names in the table's order; none given: all that can be made here.

    Raises:
        InputError: a name that is no row, or a row that cannot be made here.
    """
    if unknown := [name for name in names if name not in available()]:
        raise InputError(f"--rows: no row {', '.join(unknown)}; there are {', '.join(available())}")
    return tuple(name for name in available() if name in names or not names)


def settings(row: DecoderRow, recipe: Recipe) -> dict[str, Any]:
    """The settings that `Decoder.from_preset(row.preset, **settings)` takes under a recipe of the ladder."""
    own, before = _flat(recipe.model_dump(mode="json")), _flat(recipes.load("ladder").model_dump(mode="json"))
    always = OF_ALL + (tuple(key for key in own if key.startswith(OF_TRAINED)) if row.trained else ())
    passed = PASSED if recipes.load(row.preset).features.names else tuple(
        key for key in PASSED if key != "features.")  # a preset without FINs stays without
    return {key: value for key, value in own.items()
            if key in always or key.startswith(passed) and value != before[key]} | row.settings


def _flat(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in options.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def updates(recipe: Recipe) -> int:
    """Gradient steps of the rows that are trained end to end, after their heads were trained on true features."""
    options = recipe.finetune
    return options.epochs * -(-options.windows_per_epoch // options.batch_size)
