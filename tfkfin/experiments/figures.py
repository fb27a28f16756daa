"""The plots, as matplotlib figures without global state. The paper's values are brown diamonds, ours are blue."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from tfkfin.experiments.paper import published

OURS, OTHER, PAPER, FAINT = "#1f5f99", "#7aa6c8", "#9a6a00", "0.6"
APART = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")  # Okabe and Ito 2008
MARKERS = "osD^vP*X<>ph"  # so that lines differ without colour too


def new(width: float, height: float, rows: int = 1, columns: int = 1, **options):
    """A figure and its axes (rows, columns)."""
    figure = Figure((width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for one in axes.flat:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def imitation(true: np.ndarray, imitated: np.ndarray, names: Sequence[str], titles: Sequence[str],
              log: Sequence[bool]) -> Figure:
    """Imitated against exact features (N, F) above, residuals over their sd below; `log`: logarithmic axes."""
    figure, axes = new(3.1 * len(names), 5.6, 2, len(names))
    chosen = np.linspace(0, len(true) - 1, min(len(true), 4000)).astype(int)
    for i, name in enumerate(names):
        x, y = true[chosen, i], imitated[chosen, i]
        top, below = axes[:, i]
        if log[i]:
            kept = (x > 0) & (y > 0)
            x, y = x[kept], y[kept]
            top.set(xscale="log", yscale="log")
            below.set(xscale="log")
            for axis in (top.xaxis, top.yaxis, below.xaxis):
                axis.set_minor_formatter(NullFormatter())
        ends = [np.min(x), np.max(x)]
        top.plot(ends, ends, color=FAINT, linewidth=1)
        top.plot(x, y, ".", markersize=2.5, alpha=0.3, color=OURS, rasterized=True)
        below.axhline(0, color=FAINT, linewidth=1)
        residual = (y - x) / (np.std(true[:, i]) or 1)
        below.plot(x, residual, ".", markersize=2.5, alpha=0.3, color=OURS, rasterized=True)
        top.set_title(titles[i], fontsize=10)
        below.set_xlabel(f"true {name}")
    axes[0, 0].set_ylabel("imitated")
    axes[1, 0].set_ylabel("(imitated - true) / sd")
    return figure


def channels(r2: Mapping[str, np.ndarray], subjects: Sequence[int]) -> Figure:
    """R² by subject and channel: feature -> (S, C). The scale begins at the lowest, and never below 0."""
    low = np.clip(np.floor(50 * min(v.min() for v in r2.values())) / 50, 0, 0.98)
    count = next(iter(r2.values())).shape[1]
    figure, axes = new(1.2 + len(r2) * max(1.8, 0.32 * count), max(2.0, 0.24 * len(subjects) + 1.2), 1, len(r2),
                       sharey=True)
    for ax, (name, values) in zip(axes[0], r2.items(), strict=True):
        image = ax.imshow(np.clip(values, 0, 1), vmin=low, vmax=1, cmap="viridis", aspect="auto")
        ax.set_title(name, fontsize=10)
        ax.set_xticks(range(count), range(1, count + 1), fontsize=8)
        ax.set_yticks(range(len(subjects)), [f"S{s}" for s in subjects], fontsize=8)
        ax.set_xlabel("channel")
    figure.colorbar(image, ax=list(axes[0]), label="R²" + (" (below 0 shown as 0)" if low == 0 else ""))
    return figure


def related(var: np.ndarray, ssi: np.ndarray, length: int) -> Figure:
    """SSI against VAR (N,) and the line SSI = length x VAR."""
    figure, ((ax,),) = new(4.0, 3.4)
    kept = (var > 0) & (ssi > 0)
    ax.loglog(var[kept], ssi[kept], ".", markersize=2.5, alpha=0.3, color=OURS, rasterized=True)
    if kept.any():
        ends = np.array([var[kept].min(), var[kept].max()])
        ax.loglog(ends, length * ends, color=PAPER, linewidth=1, label=f"SSI = {length} VAR")
        ax.legend(frameon=False)
    ax.set(xlabel="true VAR", ylabel="true SSI")
    return figure


def models(titles: Mapping[str, str], data: Mapping[str, Mapping], evaluation, what: str) -> Figure:
    """Accuracy in % by model, on all subjects, beside the paper's: `titles` of models, `data` of `by_group`."""
    group, scores = list(data.items())[-1]
    rows = [(title, scores[model]["accuracy"], published.TABLE_2.get(model, {}).get(group))
            for model, title in titles.items()]
    figure, ((ax,),) = new(6.8, 0.55 * len(rows) + 1.4)
    rng = np.random.default_rng(0)
    for i, (_, score, printed) in enumerate(rows):
        values = 100 * np.array(list(score["per_subject"].values()))
        ax.plot(values, i + rng.uniform(-0.13, 0.13, len(values)), "o", markersize=3.5, alpha=0.45, color=OTHER,
                clip_on=False, label="one subject" if not i else None)
        ax.errorbar(100 * score["mean"], i, xerr=100 * score["std"], fmt="o", color=OURS, capsize=3,
                    label=f"ours: {evaluation.on}, mean ± sd" if not i else None)
        if printed:
            ax.errorbar(printed[0], i + 0.28, xerr=printed[1], fmt="D", color=PAPER, capsize=3, markersize=5,
                        markerfacecolor="white", alpha=0.9)
    if any(printed for *_, printed in rows):
        ax.plot([], [], "D", color=PAPER, markerfacecolor="white", label="paper, Ninapro DB2 (other data)")
    ax.set_yticks(range(len(rows)), [name for name, *_ in rows])
    who = evaluation.groups[group][0] if len(data) > 1 else "all subjects"
    ax.set(xlabel="accuracy %", xlim=(0, 100), title=f"{what}, {who}")
    ax.title.set_fontsize(10)
    ax.invert_yaxis()
    ax.grid(axis="x", color="0.92")
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    return figure


def pairs(first: Mapping, second: Mapping, names: tuple[str, str]) -> Figure:
    """Accuracy in % of two models, a point each (subject, seed); above the line the first model is better."""
    figure, ((ax,),) = new(3.9, 3.7)
    keys = sorted(first.keys() & second.keys())
    x, y = (100 * np.array([one[key] for key in keys]) for one in (second, first))
    ax.plot([0, 100], [0, 100], color=FAINT, linewidth=1)
    ax.plot(x, y, "o", markersize=4.5, alpha=0.6, color=OURS)
    ax.set(xlim=(0, 100), ylim=(0, 100), xlabel=f"{names[1]}, accuracy %", ylabel=f"{names[0]}, accuracy %",
           aspect="equal")
    return figure


def curves(panels: Sequence[tuple[str, Sequence[float], Mapping[str, Sequence[dict]]]]) -> Figure:
    """Accuracy in % by a variable: panels of (x label, x, {curve: [{"mean", "std"}, ...]})."""
    figure, axes = new(4.3 * len(panels) + 0.4, 3.4, 1, len(panels), sharey=True)
    for ax, (label, x, lines) in zip(axes[0], panels, strict=True):
        for i, (name, scores) in enumerate(lines.items()):
            mean, sd = (100 * np.array([s[key] for s in scores]) for key in ("mean", "std"))
            ax.plot(x, mean, markersize=5, label=name, **_style(i))
            ax.fill_between(x, mean - sd, mean + sd, color=_style(i)["color"], alpha=0.12, linewidth=0)
        ax.set(xlabel=label, ylim=(0, 100), xticks=list(x))
        ax.grid(axis="y", color="0.92")
        ax.legend(frameon=False, fontsize=8, loc="best")
    axes[0, 0].set_ylabel("accuracy %")
    return figure


def _style(i: int) -> dict[str, str]:
    """Of the i-th line of a plot."""
    return {"linestyle": "-" if i < len(APART) else "--", "marker": MARKERS[i % len(MARKERS)],
            "color": APART[i % len(APART)]}


def ladder(lines: Mapping[str, Sequence[float]], rungs: Sequence[str], data: str) -> Figure:
    """Accuracy in % by rung (R), a line a model, in colours that colour-blind people can distinguish."""
    figure, ((ax,),) = new(max(6.0, 1.0 * len(rungs) + 3.5), 4.4)
    for i, (name, values) in enumerate(lines.items()):
        ax.plot(range(len(rungs)), values, linewidth=1.2, label=name, **_style(i))
    ax.set_xticks(range(len(rungs)), rungs, rotation=30, ha="right")
    ax.set_ylabel("accuracy a window, %")
    ax.set_title(data, fontsize=10)
    ax.grid(axis="y", color="0.9")
    ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
