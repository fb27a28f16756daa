"""The pictures of README and site: `python docs/pictures.py` draws them into docs/images, where they are committed.

`results` shows figures of docs/results.md, which are of people. Nobody was recorded for any other picture.
"""

import io
import os
import re
import sys
from pathlib import Path

import numpy as np

DOCS = Path(__file__).resolve().parent
IMAGES = DOCS / "images"
NAMES = ("ENT", "RMS", "VAR", "SSI")
BLUE, ORANGE, FAINT = "#0072b2", "#d55e00", "0.6"  # told apart by colour-blind people (Okabe, Ito)
COLOURS = 64  # of a picture's palette: a third of the size, and nobody sees it
SHOWN = (  # heading in docs/results.md, column, what stands below the bars
    ("BioPatRec", "2 repetitions", "same session\nBioPatRec, 8 people\n2 repetitions learnt"),
    ("An armband, 3 people", "session, unknown", "another day\nan armband, 3 people\nnothing known of it"),
    ("An armband, 3 people", "session, labelled", "another day\nan armband, 3 people\n1 repetition of it"),
    ("Forces", "session, unknown", "another force\nforces, 4 people\nnothing known of it"),
    ("BioPatRec", "person, labelled", "another person\nBioPatRec, 8 people\n1 repetition of them"),
    ("An armband at the wrist", "person, unknown", "another person\nwrist armband, 4 people\nnothing known of them"))
BARS = {"usual features, LDA": "0.78", "usual + log-cov, LDA": "0.6", "best": BLUE, "best, adapting": "#56b4e9"}


def draw(folder: Path) -> None:
    """Every picture."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for make in (results, network, window, imitated, seen, gallery_channels, gallery_models, gallery_curves,
                 gallery_ladder, gallery_confusion, gallery_imitation):
        raw = io.BytesIO()
        make().savefig(raw, dpi=160 if make in (results, network) else 100, bbox_inches="tight", facecolor="white")
        image = Image.open(raw).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        image.save(folder / f"{make.__name__}.png", optimize=True)


def tables(text: str) -> dict[str, dict[str, dict[str, float]]]:
    """Of docs/results.md, each window decided by itself: {heading: {decoder: {column: accuracy, %}}}."""
    found: dict = {}
    for heading, section in re.findall(r"^## (.*)\n((?:(?!## ).*\n)*)", text, re.MULTILINE):
        alone = section.partition("After the same smoothing")[0]
        first, *rows = re.findall(r"^\| (.*) \|$", alone, re.MULTILINE) or [""]
        if first.startswith("decoder |"):
            columns = first.split(" | ")[1:]
            cells = (row.replace("*", "").split(" | ") for row in rows)
            found[heading] = {name: dict(zip(columns, map(float, values), strict=True)) for name, *values in cells}
    return found


def accuracies() -> list[dict[str, float]]:
    """Of each group of bars: {decoder: accuracy a window, %}."""
    read = tables((DOCS / "results.md").read_text(encoding="utf-8"))
    return [{name: next(table for heading, table in read.items() if heading.startswith(start))[name][column]
             for name in BARS} for start, column, _ in SHOWN]


def results():
    """Accuracy on people: two of the field's baselines, `best`, and `best` adapting."""
    figure, ((ax,),) = _figure(11.2, 2.9)
    for i, group in enumerate(accuracies()):
        for k, (name, value) in enumerate(group.items()):
            x = i + 0.2 * (k - 1.5)
            ax.bar(x, value, 0.19, color=BARS[name], label=name if not i else None)
            ax.text(x, value + 1.5, f"{value:.1f}", ha="center", fontsize=7.8)
    ax.set_xticks(range(len(SHOWN)), [below for *_, below in SHOWN], fontsize=9)
    ax.set(ylim=(0, 104), xlim=(-0.55, len(SHOWN) - 0.45), ylabel="windows decided right, %")
    ax.tick_params(axis="x", length=0)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="upper center", bbox_to_anchor=(0.5, 1.08), frameon=False, ncols=4, fontsize=9.5)
    return figure


_kept: dict = {}


def recording():
    """Three movements of a synthetic forearm, 4 channels, 2 kHz, standardised (T, C), and its labels."""
    if "recording" not in _kept:
        import tempfile

        import tfkfin
        from tfkfin.recordings import synthetic

        with tempfile.TemporaryDirectory() as folder:
            synthetic.synthesize(Path(folder), (1,), movements=3, repetitions=2, channels=4, hold_s=1.0, rest_s=0.6)
            one = tfkfin.read(folder)[0]
        x = ((one.emg - one.emg.mean(0)) / one.emg.std(0)).astype(np.float32)
        _kept["recording"] = x, one.labels, one.rate_hz
    return _kept["recording"]


def features():
    """Starts of windows (N,), their true and imitated features (N, C, 4)."""
    if "features" not in _kept:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        from tfkfin.features import catalogue
        from tfkfin.nets import fins
        from tfkfin.store import presets

        x, _, rate = recording()
        starts = np.arange(0, len(x) - 600, 100)
        bank = fins.bank(fins.fins_of(presets.load("conv")), x.shape[1])
        cut = x[starts[:, None] + np.arange(600)]
        parts = [np.asarray(bank(cut[i : i + 64], training=False)) for i in range(0, len(cut), 64)]
        _kept["features"] = starts, catalogue.extract(x, starts, 600, NAMES, rate), np.concatenate(parts)
    return _kept["features"]


def _figure(width: float, height: float, rows: int = 1, columns: int = 1, **options):
    from tfkfin.experiments import figures

    return figures.new(width, height, rows, columns, **options)


def window():
    """One channel, a window in it, and the four numbers that the closed forms make of it."""
    x, labels, rate = recording()
    starts, true, _ = features()
    at = int(np.flatnonzero(labels[starts + 300] > 0)[6])
    begin, stop = max(0, starts[at] - 1400), starts[at] + 2000
    figure, ((ax,),) = _figure(8.0, 2.6)
    time = np.arange(begin, stop) / rate
    ax.plot(time, x[begin:stop, 0], color=FAINT, linewidth=0.5)
    inside = slice(starts[at], starts[at] + 600)
    ax.plot(np.arange(inside.start, inside.stop) / rate, x[inside, 0], color=BLUE, linewidth=0.6)
    ax.axvspan(inside.start / rate, inside.stop / rate, color=BLUE, alpha=0.08)
    said = "   ".join(f"{name} {value:.3g}" for name, value in zip(NAMES, true[at, 0], strict=True))
    ax.set(xlabel="s", ylabel="sd", title=f"one window of 300 ms, 600 samples:   {said}")
    ax.title.set_fontsize(10)
    return figure


def imitated():
    """What FINs say against what the closed forms say, window by window."""
    from tfkfin.fit import metrics

    _, true, said = features()
    figure, axes = _figure(10.4, 2.9, 1, 4)
    for i, (name, ax) in enumerate(zip(NAMES, axes[0], strict=True)):
        a, b = true[..., i].ravel(), said[..., i].ravel()
        ends = [a.min(), a.max()]
        ax.plot(ends, ends, color=FAINT, linewidth=1)
        ax.plot(a, b, ".", markersize=3, alpha=0.35, color=BLUE)
        ax.set(title=f"{name}   R² {metrics.r2(a, b):.3f}", xlabel="closed form")
        ax.title.set_fontsize(10)
    axes[0, 0].set_ylabel("FIN")
    return figure


def seen():
    """Features along the recording, as the closed form and a FIN have them."""
    x, labels, rate = recording()
    starts, true, said = features()
    figure, axes = _figure(8.0, 4.2, 3, 1, sharex=True)
    axes[0, 0].plot(np.arange(len(x)) / rate, x[:, 0], color=FAINT, linewidth=0.3)
    axes[0, 0].set_ylabel("channel 1, sd")
    for i, ax in ((1, axes[1, 0]), (0, axes[2, 0])):
        ends = (starts + 600) / rate
        ax.plot(ends, true[:, 0, i], color=BLUE, linewidth=2.2, alpha=0.6, label="closed form")
        ax.plot(ends, said[:, 0, i], "--", color=ORANGE, linewidth=1, label="FIN")
        ax.set_ylabel(NAMES[i])
    axes[1, 0].legend(frameon=False, fontsize=8, ncols=2)
    axes[2, 0].set_xlabel("s, at the end of each window")
    return figure


def network():
    """The way of a window through the decoder, with shapes."""
    figure, ((ax,),) = _figure(11.2, 1.25)
    ax.axis("off")
    boxes = (("raw signal", "volts, (B, 600, 12)\n300 ms at 2 kHz"), ("standardise", "mean and sd\nof training"),
             ("describe", "FINs, correlations,\nlog-covariances"),
             ("head", "Conv2D, or solved with\na prior of sessions"),
             ("probabilities", "(B, 17)"), ("decision", "vote, reject,\nevery stride"))
    for i, (name, below) in enumerate(boxes):
        learnt = name in ("describe", "head")
        ax.text(i, 0.72, name, ha="center", va="center", fontsize=12, color="white" if learnt else "black",
                bbox={"boxstyle": "round,pad=0.5", "facecolor": BLUE if learnt else "0.93", "edgecolor": "none"})
        ax.text(i, 0.3, below, ha="center", va="top", fontsize=9.5, color="0.3", linespacing=1.3)
        if i:
            ax.annotate("", (i - 0.4, 0.72), (i - 0.6, 0.72), arrowprops={"arrowstyle": "->", "color": "0.3"})
    ax.set(xlim=(-0.5, len(boxes) - 0.5), ylim=(0, 1))
    return figure


# === The gallery: real plots of numbers made up to show how they are read ===

def gallery_imitation():
    from tfkfin.experiments import figures

    rng = np.random.default_rng(0)
    true = np.exp(rng.normal(0, 0.8, (1500, 2)))
    good = true[:, 0] * np.exp(rng.normal(0, 0.04, 1500))
    poor = 0.35 + 0.55 * true[:, 1] * np.exp(rng.normal(0, 0.2, 1500))
    return figures.imitation(true, np.stack([good, poor], 1), ("RMS", "ENT"), ("a good imitation", "a poor one"),
                             (False, False))


def gallery_channels():
    from tfkfin.experiments import figures

    rng = np.random.default_rng(1)
    values = {name: np.clip(base - 0.03 * rng.exponential(1, (4, 8)), 0, 1)
              for name, base in (("RMS", 1.0), ("ENT", 0.97))}
    values["ENT"][2, 5] = 0.55
    return figures.channels(values, (1, 2, 3, 4))


def gallery_models():
    from types import SimpleNamespace

    from tfkfin.experiments import figures

    rng = np.random.default_rng(2)
    titles = {"fin": "pre-trained FINs, fine-tuned", "random": "random FINs, fine-tuned",
              "lda": "LDA on exact features"}
    scores = {}
    for name, mean in (("fin", 0.88), ("random", 0.76), ("lda", 0.92)):
        people = {str(s): float(np.clip(rng.normal(mean, 0.06), 0, 1)) for s in range(1, 9)}
        found = list(people.values())
        scores[name] = {"accuracy": {"mean": np.mean(found), "std": np.std(found), "per_subject": people}}
    return figures.models(titles, {"all": scores}, SimpleNamespace(on="made up", groups={}), "accuracy by model")


def gallery_curves():
    from tfkfin.experiments import figures

    def of(values):
        return [{"mean": v, "std": 0.05} for v in values]

    lines = {"pre-trained FINs": of((0.62, 0.74, 0.82, 0.86, 0.88)), "random FINs": of((0.35, 0.52, 0.64, 0.71, 0.76))}
    return figures.curves([("share of training windows, %", (20, 40, 60, 80, 100), lines)])


def gallery_ladder():
    from tfkfin.experiments import figures
    from tfkfin.experiments.kinds import ladder

    lines = {"one model": (81, 89, 46, 46, 76), "another": (92, 97, 81, 83, 86), "a third": (90, 94, 74, 77, 83)}
    rungs = map(ladder.titled, ("repetition-1", "repetition-2", "session-0", "session-0u", "session-1"))
    return figures.ladder(lines, tuple(rungs), "made up")


def gallery_confusion():
    from tfkfin.fit import board

    counts = np.array([[94, 4, 2, 0], [9, 85, 4, 2], [1, 2, 71, 26], [0, 1, 22, 77]])
    names = {1: "index", 2: "middle", 3: "fist", 4: "grasp"}
    return board.confusion_figure(counts, [1, 2, 3, 4], "made up, all test windows", names)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if sys.argv[1:] else IMAGES)
