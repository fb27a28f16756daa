"""Whether shipped FINs hold on recordings that they did not learn from: the tables of docs/fins.md.

    python benchmarks/holding.py DIR [--families bilstm,conv,dense] [--sets ninapro_db1] [--version 2] [--json FILE]

DIR has a folder of recordings for each set. R² is of the feature in its own units against the closed form, pooled over
channels, windows and people; loud channels carry most of that, so three more columns look at each person: the median
over channels (the worst person's, the worst feature's), the worst channel that moves, and the median relative error of
RMS. Windows lie in movements (`moves`) and anywhere (`stream`), standardised by the windows in movements. Then the
table by kind of simulated signal, from the models' cards.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from tfkfin.base.files import shipped
from tfkfin.features import catalogue
from tfkfin.fit import metrics, training
from tfkfin.nets import fins
from tfkfin.pipeline.subject import Subject
from tfkfin.pipeline.windows import evenly
from tfkfin.recipe import Window
from tfkfin.recordings import readers
from tfkfin.store import folders, presets

WHERE = {"moves": Window(), "stream": Window(rest=True)}
FILES = 6  # of a person at most, evenly spread


def windows_of(folder: Path, people: int, count: int):
    """Standardised windows (N, L, C) of each person, in movements and anywhere."""
    files = {}
    for one in readers.find(folder):
        files.setdefault(one.subject, []).append(one)
    for who in list(files)[: people or None]:
        own = [readers.read(files[who][i]) for i in evenly(len(files[who]), FILES)]
        moves = Subject.of(own, WHERE["moves"])
        for where, window in WHERE.items():
            subject = moves if where == "moves" else Subject.of(own, window)
            length = round(window.length_ms * subject.rate_hz / 1000)
            starts = subject.windows.starts[evenly(len(subject.windows), count)]
            emg = subject.emg[starts[:, None] + np.arange(length)]
            yield who, where, ((emg - moves.mean) / moves.sd).astype(np.float32)


def row(true: list[np.ndarray], said: list[np.ndarray], names: tuple[str, ...]) -> dict:
    """`true`, `said`: features (N, C, F) of each person."""
    def by_channel(t, p):
        return np.array([[metrics.r2(t[:, c, f], p[:, c, f]) for f in range(len(names))] for c in range(t.shape[1])])

    channels = [by_channel(t, p) for t, p in zip(true, said, strict=True)]
    moving = [t[..., names.index("VAR")].max(axis=0) > 1e-3 for t in true]
    rms = names.index("RMS")
    pooled = [np.concatenate([x.reshape(-1, len(names)) for x in every]) for every in (true, said)]
    return {"pooled": {name: metrics.r2(pooled[0][:, i], pooled[1][:, i]) for i, name in enumerate(names)},
            "worst_median": float(min(np.nanmedian(one, axis=0).min() for one in channels)),
            "worst_channel": float(min(np.nanmin(one[which]) for one, which in zip(channels, moving, strict=True))),
            "rms_error": float(max(np.median(np.abs(p[..., rms] - t[..., rms]) / np.maximum(t[..., rms], 1e-6))
                                   for t, p in zip(true, said, strict=True)))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DIR")
    parser.add_argument("--families", default="bilstm,conv,dense")
    parser.add_argument("--sets", help="by default every folder in DIR")
    parser.add_argument("--version", type=int, help="of the shipped FINs, by default the newest")
    parser.add_argument("--people", type=int, default=0, help="of a set at most; 0: all")
    parser.add_argument("--count", type=int, default=200, help="windows of a person, in movements and anywhere each")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    sets = asked.sets.split(",") if asked.sets else sorted(one.name for one in asked.data.iterdir() if one.is_dir())
    models, found, cards = {}, {}, {}
    for family in asked.families.split(","):
        version = presets.find(shipped("savedmodels") / f"fin_{family}" / str(asked.version or ""))
        cards[family] = folders.card(version)
        models[family] = training.Predictor(fins.bank(fins.fins_of(presets.load(str(version))), channels=1))
    names = tuple(cards[family]["features"])
    for name in sets:
        true, said = {}, {}
        for _, where, x in windows_of(asked.data / name, asked.people, asked.count):
            true.setdefault(where, []).append(catalogue.direct(x, names))
            flat = x.transpose(0, 2, 1).reshape(-1, x.shape[1], 1)
            for family, predict in models.items():
                answers = predict(flat, batch_size=256).reshape(len(x), x.shape[2], len(names))
                said.setdefault((family, where), []).append(answers)
        for (family, where), answers in said.items():
            found[f"{name} {where} {family}"] = row(true[where], answers, names)
        print(f"{name}: done", flush=True)
    print(f"\n| set, windows, family | {' | '.join(names)} | worst person's median | worst channel | RMS error |")
    print("|---" * (4 + len(names)) + "|")
    for what, one in found.items():
        print(f"| {what} | {' | '.join(f'{r2:.3f}' for r2 in one['pooled'].values())} | {one['worst_median']:.3f} | "
              f"{one['worst_channel']:.2f} | {100 * one['rms_error']:.1f} % |")
    for family, card in cards.items():
        print(f"\n| simulated, {family} | {' | '.join(names)} |\n{'|---' * (1 + len(names))}|")
        for kind, by_feature in card["scores"].get("kinds", {}).items():
            print(f"| {kind} | {' | '.join(f'{by_feature[name]:.3f}' for name in names)} |")
    if asked.json:
        asked.json.write_text(json.dumps({"sets": found, "kinds": {
            family: card["scores"].get("kinds", {}) for family, card in cards.items()}}, indent=1))


if __name__ == "__main__":
    main()
