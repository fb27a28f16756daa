"""TensorBoard: scalars, curves and figures of a run; the figures as PNG files too."""

import io
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from tfkfin import recipe as recipes
from tfkfin.base import quoted
from tfkfin.base.files import write_bytes

WATCHED = 256  # test windows that are scored after each epoch, for curves alone: they change nothing


class Summaries(ExitStack):
    """Writes TensorBoard summaries of one stage or subject to `folder`; a context manager.

    Curves of loss, accuracy and the like by epoch have the same tags for every stage and subject, so that they overlay.
    TensorBoard draws one run a side: `folder`/train; `folder`/validation, which early stopping goes by; and
    `folder`/test for some test windows, which change nothing.
    """

    def __init__(self, folder: str):
        import tensorflow as tf

        super().__init__()
        self._tf, self.folder, self._writers = tf, folder, {}

    def _at(self, step: int, side: str = ""):
        if side not in self._writers:
            self._writers[side] = self._tf.summary.create_file_writer(f"{self.folder}/{side}".rstrip("/"))
            self.callback(self._writers[side].close)
        return self._writers[side].as_default(step)

    def scalars(self, values: Mapping[str, float], step: int, side: str = "") -> None:
        """Values by tag; `side` "train", "validation" or "test" puts them into curves."""
        with self._at(step, side):
            for tag, value in values.items():
                self._tf.summary.scalar(tag, float(value))

    def figure(self, tag: str, figure, step: int, png: Path | None = None) -> None:
        """Writes a matplotlib figure, and if a path is given also as a PNG file."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
        if png is not None:
            write_bytes(png, buffer.getvalue())
        with self._at(step):
            self._tf.summary.image(tag, self._tf.image.decode_png(buffer.getvalue(), 4)[None])

    def hparams(self, recipe: recipes.Recipe, stage: str, metrics: dict[str, float]) -> None:
        """The recipe as hyperparameters of a stage, with its scores; each stage of a run is a row of its own.

        No table of columns is written: TensorBoard would show the first run's alone. Without one it finds the keys of
        all runs and begins with those in which they differ.
        """
        from tensorboard.plugins.hparams import api

        own = recipes.values(recipe) | {"stage": stage}
        with self._at(0):
            api.hparams({key: value if isinstance(value, bool | int | float | str) else str(value)
                         for key, value in own.items()}, trial_id=f"{recipe.digest}-{stage}")
        self.scalars(metrics, 0)


def loss_and_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Cross-entropy and accuracy of probabilities (N, G) for class indices (N,), as Keras computes them in training."""
    own = np.take_along_axis(probabilities, labels[:, None].astype(int), axis=1)
    return {"loss": float(-np.mean(np.log(np.clip(own, 1e-7, 1)))),
            "accuracy": float(np.mean(probabilities.argmax(axis=1) == labels))}


def confusion_figure(matrix: np.ndarray, labels: list[int], title: str, names: Mapping[int, str] | None = None):
    """Confusion matrix (G, G) of counts, rows true, as row percentages; `names` of movements, where they are known."""
    figure, axes = _figure(max(4.0, 0.42 * len(labels) + 1.6))
    share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, vmin=0, vmax=100, cmap="viridis")
    axes.set(title=quoted.figure(title), xlabel="predicted movement", ylabel="true movement")
    shown = [quoted.figure(f"{(names or {}).get(label, '')} {label}".strip()) for label in labels]
    axes.set_xticks(range(len(labels)), shown, **({"rotation": 90} if names else {}))
    axes.set_yticks(range(len(labels)), shown)
    for (i, j), value in np.ndenumerate(share):
        if value >= 0.5:
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=7,
                      color="black" if value > 60 else "white")
    figure.colorbar(image, ax=axes, label="% of the true movement's windows", shrink=0.8)
    return figure


def imitation_figure(true: np.ndarray, imitated: np.ndarray, names: tuple[str, ...], scores: dict[str, dict]):
    """Imitated against true features (N, F), one panel a feature."""
    figure, panels = _figure(3.2, width=3.2 * len(names), columns=len(names))
    chosen = np.linspace(0, len(true) - 1, min(len(true), 2000)).astype(int)
    for i, (name, axes) in enumerate(zip(names, np.atleast_1d(panels), strict=True)):
        low, high = np.min(true[:, i]), np.max(true[:, i])
        axes.plot([low, high], [low, high], color="0.6", linewidth=1)
        axes.plot(true[chosen, i], imitated[chosen, i], ".", markersize=3, alpha=0.4)
        axes.set(title=f"{name}   R² {scores[name]['r2']:.3f}", xlabel="true", ylabel="imitated")
    figure.tight_layout()
    return figure


def _figure(height: float, width: float | None = None, columns: int = 1):
    """A figure without pyplot: nothing to close, no window, safe in threads."""
    from matplotlib.figure import Figure

    figure = Figure((width or height * 1.15, height))
    return figure, figure.subplots(1, columns)
