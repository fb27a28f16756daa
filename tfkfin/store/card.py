"""Model cards: what a model is, how it was made, how it scored under which protocol, and what it is not for.

Reference: Mitchell et al. 2019, "Model cards for model reporting", doi:10.1145/3287560.3287596
"""

import time
from collections.abc import Iterable
from pathlib import Path

from tfkfin import __version__
from tfkfin.base.files import write_json, write_text
from tfkfin.store import folders

LICENCE = "Apache-2.0"
MADE_FOR, UNSEEN = "Made for", "Movements"  # first words of the limits that each calibration replaces


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
    limits = [line for line in before if not line.startswith((MADE_FOR, UNSEEN))]
    return {key: value for key, value in about.items() if key not in ("updated", "carried")} | {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "tfkfin": __version__, "licence": LICENCE,
        "calibration": report,
        "summary": f"decoder of {len(about['movements'])} movements, calibrated for {whose}",
        "input": f"(B, {about['length']}, {about['channels']}) volts at {about['rate_hz']:g} Hz",
        "score": "not scored: no other repetition was there" if after is None else
                 f"{100 * after['accuracy']:.1f} % of windows, {100 * after['execution']:.1f} % of executions",
        "scores": {"fin": {}} | (after or {}) | {"protocol": f"calibrated on repetitions {known}; scored on the other "
                                                             "repetitions of these recordings"},
        "limits": [f"{MADE_FOR} {whose} with the electrodes where they were: for another person, another session or "
                   "moved electrodes, calibrate anew.",
                   *([f"{UNSEEN} {report['unseen']} were not calibrated on."] if report["unseen"] else []),
                   *_omitted(report),
                   *limits]}


def _omitted(report: dict) -> list[str]:
    """The recall of movements that were not calibrated on, where recordings have them."""
    before, after = ((report[when] or {}).get("recall_unseen") for when in ("before", "after"))
    if before is None or after is None:
        return []
    return [f"{UNSEEN} that it was not shown: {100 * before:.1f} % of their windows were decided right before it was "
            f"calibrated, {100 * after:.1f} % after."]


def of_fins(own: dict, results: dict) -> dict:
    """The card of FINs alone; arguments as of `of_decoder`."""
    names, scores = ", ".join(own["features"]), own["scores"]["fin"]
    source = "the training repetitions of the data below" if results.get("dataset") else \
        "synthetic signals of wide range, no recording"
    return _common(own, results) | {
        "summary": f"FINs ({own['family']}) for {names}",
        "input": f"(B, {own['length']}, any) standardised, at {own['rate_hz']:g} Hz",
        "score": "R² " + ", ".join(f"{name} {s['r2']:.3f}" for name, s in scores.items()),
        "scores": {"fin": scores, "protocol": f"FINs trained on windows of {source}; R² on test windows of the same "
                                              "source that were never trained on"},
        "limits": [
            "Each channel must be standardised (zero mean, unit variance over a training stretch) before it comes in; "
            "features are those of the standardised signal.",
            f"Windows of {own['length']} samples at {own['rate_hz']:g} Hz; nothing is resampled inside.",
            "Imitations, not exact values: amplitudes far outside the training range are extrapolated, and an offset "
            "of some standard deviations or single spikes break every family (R² below 0): filter them first.",
        ],
    }


def _common(own: dict, results: dict) -> dict:
    return own | {"created": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "tfkfin": __version__, "licence": LICENCE,
                  "fin_scores": results.get("fin", {}), "dataset": results.get("dataset"),
                  "environment": results.get("environment", {})}


def _protocol(own: dict, about: dict) -> str:
    train, tuned, test = (", ".join(map(str, about[f"{part}_repetitions"])) for part in ("train", "finetune", "test"))
    return (f"{own['protocol']}: trained on repetitions {train}, fine-tuned on {tuned}, scored on every window of "
            f"repetitions {test} of the same subject and session; windows of {own['length_ms']:g} ms "
            f"every {own['stride_ms']:g} ms, inside one movement")


def _decoder_limits(about: dict, own: dict, whose: str = "") -> list[str]:
    whose = whose or f"subject {own['subject']}"
    limits = [f"{MADE_FOR} {whose} with the electrodes where they were: for another person, another "
              "session or moved electrodes, train anew.",
              f"Windows of {own['length']} samples, {own['channels']} channels in the recording's order, volts, at "
              f"{own['rate_hz']:g} Hz; nothing is resampled inside.",
              _filter(own),
              "Scores hold for windows inside one movement; transitions between movements were not scored.",
              _decided(own["decision"]),
              "Research software, no medical device."]
    if 0 not in own["movements"]:
        limits.insert(0, "It knows no rest: a window of rest is called the movement that it resembles most.")
    if about["synthetic"]:
        limits.insert(0, "Trained on synthetic recordings: it proves the plumbing and decodes nobody's hand.")
    return limits


def _filter(own: dict) -> str:
    if "filter" not in own:
        return "Nothing is filtered: signals must be like the training signals, offsets and hum too."
    options, parts = own["filter"], []
    for name, key in (("high-pass", "high_pass_hz"), ("low-pass", "low_pass_hz")):
        parts += [f"{name} {options[key]:g} Hz (order {options['order']})"] if options[key] else []
    tones = [f"{k * options['notch_hz']:g} Hz" for k in range(1, options["notches"] + 1)] if options["notch_hz"] else []
    parts += [f"notches at {', '.join(tones)} (Q {options['notch_q']:g})"] if tones else []
    return (f"It expects signals through a causal filter: {', '.join(parts)}. `stream`, the client and tfkfin.live "
            "filter; windows for `serving_default` have to be cut from a signal that went through the sections that "
            "`about` tells.")


def _decided(decision: dict) -> str:
    if decision == {"vote": 1, "reject": 0.0}:
        return "Every window is decided for itself: no vote, no rejection."
    return (f"The score is of decisions that average the last {decision['vote']} windows and reject those less "
            f"probable than {decision['reject']:g} (label -1, counted as wrong). `stream` decides so; "
            "`serving_default` answers windows one by one, without either.")


def write(version: Path, card: dict) -> None:
    """Writes model_card.json and README.md into a version folder whose other files are complete."""
    write_text(version / folders.README, readme(card))
    write_json(version / folders.CARD, folders.sealed(card | {"sha256": folders.checksums(version)}))


def readme(card: dict) -> str:
    """A card for people, in Markdown."""
    rows = [("input", f"`emg` float32 {card['input']}"), ("features", ", ".join(card["features"])),
            ("parameters", f"{card['parameters']:,}"), ("score", card["score"] + _since(card)),
            ("protocol", card["scores"]["protocol"]),
            ("recipe", f"digest `{card['recipe_digest']}`, whole in model_card.json"),
            ("data", _data(card)), ("made by", f"tfkfin {card['tfkfin']}, {card['created'][:10]}, run {card['run']}"),
            ("licence", f"{card['licence']} (the weights; recordings keep their own terms)")]
    if card["kind"] == "decoder":
        names = card.get("names", {})
        labels = ", ".join(f"{movement} {names.get(str(movement), '')}".strip() for movement in card["movements"])
        rows.insert(1, ("labels", f"{labels} (as in the files)"))
    fin = [f"| {name} | {s['r2']:.4f} |" for name, s in card["scores"]["fin"].items()]
    lines = [f"# {card['name']}, version {card['version']}", "", f"{card['summary'][0].upper()}{card['summary'][1:]}.",
             "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), "",
             *(["| imitated feature | R² |", "|---|---|", *fin, ""] if fin else []),
             "## Signatures", "", *_signatures(card), "", "## Limits", "", *(f"- {limit}" for limit in card["limits"]),
             "", "## Use", "", "```python", *_usage(card), "```", ""]
    return "\n".join(lines)


def _since(card: dict) -> str:
    changed = [f"{card['updated']:,} more windows updated it"] if "updated" in card else []
    changed += [f"it was carried on from {card['carried']} sessions without labels"] if "carried" in card else []
    return f" (before {' and '.join(changed)})" if changed else ""


def _data(card: dict) -> str:
    about = card["dataset"]
    if about is None:
        return "synthetic signals of wide range, no recording"
    what = "synthetic recordings" if about["synthetic"] else "recordings"
    return (f"{what} of {len(about['subjects'])} subjects, {about['channels']} channels, {about['rate_hz']:g} Hz, "
            f"{len(about['movements'])} movements, {about['windows']:,} windows")


def _signatures(card: dict) -> list[str]:
    length, count = card["length"], len(card["features"])
    if card["kind"] == "fins":
        return [f"- `serving_default`, `features`: `emg` (B, {length}, C), any C -> `features` (B, C, {count}) in own "
                "units"]
    channels, movements = card["channels"], len(card["movements"])
    return [f"- `serving_default`: `emg` (B, {length}, {channels}) volts -> `probabilities` (B, {movements}), `label` "
            f"(B,) int64, `features` (B, {channels}, {count}) in own units",
            "- `features`: the same `emg` -> `features` alone",
            f"- `stream`: `emg` (B, T, {channels}) volts, T >= {length} -> the same three with an axis W after B: one "
            f"decision every {card['stride']} samples, W = (T - {length}) // {card['stride']} + 1",
            "- `about`: any array -> `rate_hz`, `length`, `stride`, `vote`, `reject`, `movements`: what clients ask",
            *_onnx(card)]


def _onnx(card: dict) -> list[str]:
    if card["format"] == "savedmodel":
        return []
    if card["format"] == "litert":
        return [f"- `{folders.LITERT}` answers as `serving_default`, one window a call; it takes what it is given "
                "unchecked"]
    if (precision := card.get("precision", "float32")) != "float32":
        return [f"- `{folders.ONNX}`, in {precision}, answers nearly as `serving_default`; it takes what it is given "
                "unchecked and at once"]
    return [f"- `{folders.ONNX}` answers as `serving_default`, `{folders.ONNX_STREAM}` as `stream`; both take what "
            "they are given unchecked and at once"]


def _usage(card: dict) -> list[str]:
    if card["format"] == "litert":
        return ["from ai_edge_litert.interpreter import Interpreter",
                f'run = Interpreter(model_path="{folders.LITERT}").get_signature_runner("serving_default")',
                "answer = run(emg=emg[:1])"]
    if card["format"] == "onnx":
        return ["import onnxruntime", f'session = onnxruntime.InferenceSession("{folders.ONNX}")',
                'answer = dict(zip([o.name for o in session.get_outputs()], session.run(None, {"emg": emg})))']
    return ["import tensorflow as tf  # tfkfin is not needed",
            f'serve = tf.saved_model.load("{card["name"]}/{card["version"]}").signatures["serving_default"]',
            "answer = serve(emg=tf.constant(emg, tf.float32))"]
