"""Model cards: what a model is, how it was made, how it scored under which protocol, and what it is not for.

Reference: Mitchell et al. 2019, "Model cards for model reporting", doi:10.1145/3287560.3287596
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfkfin import __version__
from tfkfin.base.errors import refused_as
from tfkfin.base.files import write_json, write_text
from tfkfin.base.quoted import line, markdown
from tfkfin.store import folders, presets

if TYPE_CHECKING:
    from tfkfin.recipe import Recipe

LICENCE = "Apache-2.0"
REPLACED = ("Made for", "Movements")  # first words of the limits that each calibration replaces


def about(recipe: "Recipe", rate_hz: float, length: int, stride: int, movements: Sequence[int] | np.ndarray,
          mean: np.ndarray, sd: np.ndarray, names: Mapping[int, str] | None = None,
          recorded_hz: Iterable[float] = ()) -> dict:
    """The part of a card that says how a decoder decodes, and which recipe made it.

    Args:
        length, stride: samples at `rate_hz`.
        movements: labels of the G classes, as in the files.
        mean, sd: (C,) volts that signals are standardised by.
        names: of movements, as far as they are known.
        recorded_hz: rates of the recordings that it was fitted on, before they were resampled to `rate_hz`.
    """
    recorded = sorted({float(rate) for rate in recorded_hz})
    more = {"recorded_hz": recorded, "learnt_from": presets.learnt_from(recipe)}
    return folders.made_by(recipe, length, rate_hz) | {
        "kind": "decoder", "head": recipe.classifier.kind, "stride": stride, "stride_ms": recipe.window.stride_ms,
        "channels": len(mean), "movements": [int(m) for m in movements],
        "decision": {"vote": recipe.classifier.vote, "reject": recipe.classifier.reject},
        "mean_v": [float(v) for v in mean], "sd_v": [float(v) for v in sd]
    } | named(movements, names or {}) | {name: known for name, known in more.items() if known}


def named(movements: Sequence[int] | np.ndarray, names: Mapping[int, str]) -> dict:
    """The part of a card that says what movements are called; nothing where none has a name."""
    known = {str(m): names[m] for m in map(int, movements) if m in names}
    return {"names": known} if known else {}


def of_decoder(own: dict, results: dict) -> dict:
    """The card of one subject's fine-tuned decoder, without name, version and format.

    Args:
        own: the card that the stage saved with the decoder.
        results: its run's results.json.
    """
    about, scores = results["dataset"], own["scores"]
    false = scores["false_per_minute"]
    made = "synthetic recordings" if about["synthetic"] else "recordings"
    spread = results.get("accuracy", {}) if results.get("stage") == "finetune" else {}
    return _common(own, results) | {
        "summary": f"decoder of {len(own['movements'])} movements, subject {own['subject']}, {made}",
        "input": f"(B, {own['length']}, {own['channels']}) volts at {own['rate_hz']:g} Hz",
        "score": f"{100 * scores['accuracy']:.1f} % of test windows, {100 * scores['execution']:.1f} % of executions"
                 + ("" if false is None else f", {false:.1f} false activations a minute of rest"),
        "scores": scores | {"accuracy_over_subjects": spread, "protocol": _protocol(own, about)},
        "limits": _decoder_limits(about, own),
    }


def of_fitted(own: dict, windows: int, subjects: int | Iterable[int], synthetic: bool, parameters: int) -> dict:
    """The card of a decoder that was fitted from Python, on so many windows, and scored on none; `own` as above."""
    people = [subjects] if isinstance(subjects, int) else sorted(subjects)
    own = own | {"subject": people[0], "synthetic": synthetic, "parameters": parameters}
    about = {"subjects": people, "windows": windows} | {key: own[key] for key in ("channels", "rate_hz", "movements",
                                                                                     "synthetic")}
    made = "synthetic recordings" if synthetic else "recordings"
    return _common(own, {"dataset": about}) | {
        "run": "Python", "summary": f"decoder of {len(own['movements'])} movements, {made}",
        "input": f"(B, {own['length']}, {own['channels']}) volts at {own['rate_hz']:g} Hz", "score": "not scored",
        "scores": {"fin": {}, "protocol": f"fitted to all of its {windows} windows, so there is none to score"},
        "limits": _decoder_limits(about, own, f"subjects {', '.join(map(str, people))}" if len(people) > 1 else "")}


def of_calibrated(about: dict, report: dict) -> dict:
    """The card of a decoder that was calibrated for another session.

    Args:
        about: the card of the decoder that it was, as of `of_decoder`.
        report: of `tfkfin.fit.calibration`: `subject`, `session`, `repetitions`, `labelled`, `unseen`, scores `after`.
    """
    after, whose = report["after"], f"subject {report['subject']}" + (f", session {report['session']}"
                                                                  if report["session"] else "")
    known = ", ".join(map(str, report["repetitions"])) + ("" if report["labelled"] else ", without labels")
    before = about.get("limits") or _decoder_limits(about, about)  # a decoder inside a run folder has none yet
    recall = [(report[when] or {}).get("recall_unseen") for when in ("before", "after")]
    own = _limits({"kind": "calibrated", "whose": whose, "unseen": report["unseen"], "recall": recall})
    return {key: value for key, value in about.items() if key not in ("updated", "carried")} | {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "tfkfin": __version__, "licence": LICENCE,
        "calibration": report,
        "summary": f"decoder of {len(about['movements'])} movements, calibrated for {whose}",
        "input": f"(B, {about['length']}, {about['channels']}) volts at {about['rate_hz']:g} Hz",
        "score": "not scored: no other repetition was there" if after is None else
                 f"{100 * after['accuracy']:.1f} % of windows, {100 * after['execution']:.1f} % of executions",
        "scores": {"fin": {}} | (after or {}) | {"protocol": f"calibrated on repetitions {known}; scored on the other "
                                                             "repetitions of these recordings"},
        "limits": own + [line for line in before if not line.startswith(REPLACED)]}


def of_fins(own: dict, results: dict) -> dict:
    """The card of FINs alone; arguments as of `of_decoder`."""
    names, scores = ", ".join(own["features"]), own["scores"]["fin"]
    source = "the training repetitions of the data below" if results.get("dataset") else \
        "synthetic signals of wide range, no recording"
    return _common(own, results) | {
        "summary": f"FINs ({own['family']}) for {names}",
        "input": f"(B, {own['length']}, any) standardised, at {own['rate_hz']:g} Hz",
        "score": "R² " + ", ".join(f"{name} {s['r2']:.3f}" for name, s in scores.items()),
        "scores": own["scores"] | {"protocol": f"FINs trained on windows of {source}; R² on test windows of the same "
                                               "source that were never trained on"},
        "limits": _limits(own | {"kind": "fins"})}


def _common(own: dict, results: dict) -> dict:
    return own | {"created": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "tfkfin": __version__, "licence": LICENCE,
                  "fin_scores": results.get("fin", {}), "dataset": results.get("dataset"),
                  "environment": results.get("environment", {})}


def _protocol(own: dict, about: dict) -> str:
    train, tuned, test = (", ".join(map(str, about[f"{part}_repetitions"])) for part in ("train", "finetune", "test"))
    learnt, scored = (f" of sessions {', '.join(map(str, about[key]))}" if about.get(key) else ""
                      for key in ("train_sessions", "test_sessions"))
    return (f"{own['protocol']}: trained on repetitions {train}{learnt}, fine-tuned on {tuned}, scored on every window "
            f"of repetitions {test}{scored} of the same subject{'' if scored else ' and session'}; windows of "
            f"{own['length_ms']:g} ms every {own['stride_ms']:g} ms, inside one movement")


def _decoder_limits(about: dict, own: dict, whose: str = "") -> list[str]:
    return _limits(own | {"kind": "decoder", "synthetic": about["synthetic"], "filters": _filters(own.get("filter")),
                          "whose": whose or f"subject {own['subject']}"})


def _limits(about: dict) -> list[str]:
    return _rendered("limits.txt.jinja", about).splitlines()


def _filters(options: dict | None) -> list[str] | None:
    """What a causal filter consists of."""
    if options is None:
        return None
    parts = [f"{name} {options[key]:g} Hz (order {options['order']})" for name, key in
             (("high-pass", "high_pass_hz"), ("low-pass", "low_pass_hz")) if options[key]]
    tones = [f"{k * options['notch_hz']:g} Hz" for k in range(1, options["notches"] + 1)] if options["notch_hz"] else []
    return parts + ([f"notches at {', '.join(tones)} (Q {options['notch_q']:g})"] if tones else [])


def write(version: Path, card: dict) -> None:
    """Writes model_card.json and README.md into a version folder whose other files are complete."""
    write_text(version / folders.README, readme(card))
    write_json(version / folders.CARD, folders.sealed(card | {"sha256": folders.checksums(version)}))


def readme(card: dict) -> str:
    """A card for people, in Markdown."""
    changes = [f"{card['updated']:,} more windows updated it"] if "updated" in card else []
    changes += [f"it was carried on from {card['carried']} sessions without labels"] if "carried" in card else []
    limits = [Limit(markdown(limit, spans=True)) for limit in card["limits"]] if "limits" in card else []
    about = {"names": {}, "precision": "float32", "changes": changes} | card | {"limits": limits}
    return _rendered("README.md.jinja", about, _escaped)


class Limit(str):
    """A limit in Markdown."""


def _escaped(value: Any) -> Any:
    """Text of a card, which may be a stranger's, as Markdown."""
    return markdown(value) if isinstance(value, str) and not isinstance(value, Limit) else value


def _rendered(template: str, about: dict, finalize: Callable[[Any], Any] | None = None) -> str:
    import jinja2

    own = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True,  # noqa: S701
                             lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined,
                             finalize=finalize)
    with refused_as(f"the card of {line(about.get('name', 'the model'), 80)} is not whole", jinja2.UndefinedError):
        return own.get_template(template).render(about, files=folders)
