"""Fits: one model on one subject with one seed under one setting; a finished fit is never run again.

A fit names no experiment, so experiments that need the same one share it.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace

from tfkfin.base.console import log
from tfkfin.fit.ledger import Ledger


@dataclass(frozen=True, order=True)
class Setting:
    """What an experiment varies. The defaults are the plain decoder of Table 2.

    Attributes:
        fraction: % of each held movement's windows in training, the first in time.
        repetitions: how many repetitions are in training, at equal numbers of windows; 0: all, whole.
        horizon_ms: how long after a window's last sample the movement to decide is.
    """

    fraction: int = 100
    repetitions: int = 0
    horizon_ms: int = 0

    @property
    def slug(self) -> str:
        parts = [f"{name}-{value}" for name, value in asdict(self).items() if value != getattr(Setting(), name)]
        return "_".join(parts) or "plain"


@dataclass(frozen=True, order=True)
class Fit:
    """One model on one subject; `seed` is None for deterministic models."""

    subject: int
    model: str
    setting: Setting = field(default_factory=Setting)
    seed: int | None = None

    @property
    def key(self) -> str:
        """Its key in the ledger."""
        return f"{self.model}/{self.setting.slug}/S{self.subject}" + ("" if self.seed is None else f"-seed{self.seed}")

    def of(self, model: str) -> "Fit":
        """The same with another model."""
        return replace(self, model=model)


def finish(ledger: Ledger, fits: Iterable[Fit], work: Callable[[Fit], tuple[dict, dict]], title: str = "") -> None:
    """Runs the fits that are not finished, subject by subject.

    Args:
        work: fit -> (scores, arrays).
        title: of the progress lines in the log; "": none.
    """
    fits, began = list(fits), time.monotonic()
    todo = sorted((fit for fit in fits if ledger.get(fit.key) is None), key=lambda fit: fit.subject)
    if title:
        log.info("%s: %d of %d fits to do", title, len(todo), len(fits))
    for i, fit in enumerate(todo, 1):
        if (scores := ledger.get(fit.key)) is None:  # another fit may have needed it
            since = time.monotonic()
            scores, arrays = work(fit)
            scores |= {"seconds": time.monotonic() - since, "fit": asdict(fit)}
            ledger.put(fit.key, scores, arrays)
        if title:
            score = f": accuracy {100 * scores['accuracy']:.1f} %" if "accuracy" in scores else ""
            left = (time.monotonic() - began) / i * (len(todo) - i)
            log.info("%s %d/%d: %s%s, about %.0f s left", title, i, len(todo), fit.key, score, left)
