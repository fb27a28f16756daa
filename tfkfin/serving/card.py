"""Model cards: what a model is, how it was made, how it scored under which protocol, and what it is not for.

Reference: Mitchell et al. 2019, "Model cards for model reporting", doi:10.1145/3287560.3287596
"""

import time
from pathlib import Path

from tfkfin import __version__
from tfkfin.files import write_json
from tfkfin.fit.run import Run
from tfkfin.models import shelf
from tfkfin.models.decoder import Decoder

LICENCE = "Apache-2.0"


def common(run: Run, rate_hz: float, parameters: int) -> dict:
    """What cards of decoders and of FINs alike hold."""
    results, recipe = run.results(), run.recipe
    length_ms = recipe.window.length_ms
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "tfkfin": __version__, "run": run.folder.resolve().name,
        "recipe_digest": recipe.digest, "protocol": recipe.protocol, "licence": LICENCE, "parameters": int(parameters),
        "features": list(recipe.features.names), "family": recipe.fin.family, "rate_hz": rate_hz,
        "length": run.length, "length_ms": length_ms, "fin_scores": results.get("fin", {}),
        "dataset": results.get("dataset"), "environment": results.get("environment", {}),
        "recipe": recipe.model_dump(mode="json"),
    }


def of_decoder(run: Run, decoder: Decoder) -> dict:
    """The card of one subject's fine-tuned decoder: what it knows of itself, and what people want to know."""
    results, own = run.results(), decoder.card
    about, subject = results["dataset"], own["subject"]
    done = run.done("finetune", f"S{subject}")
    spread = results.get("accuracy", {}) if results.get("stage") == "finetune" else {}
    made = "synthetic recordings" if about["synthetic"] else "recordings"
    return common(run, own["rate_hz"], decoder.model.count_params()) | own | {
        "stride_ms": run.recipe.window.stride_ms,
        "summary": f"decoder of {len(own['movements'])} movements, subject {subject}, {made}",
        "input": f"(B, {own['length']}, {own['channels']}) volts at {own['rate_hz']:g} Hz",
        "score": f"{100 * done['accuracy']:.1f} % of test windows",
        "scores": {"accuracy": done["accuracy"], "accuracy_over_subjects": spread,
                   "fin": done.get("fin_finetuned", {}), "protocol": _protocol(run, about)},
        "limits": _decoder_limits(about, own),
    }


def of_fins(run: Run, rate_hz: float, parameters: int) -> dict:
    """The card of FINs alone."""
    scores = run.results().get("fin", {})
    source = "synthetic signals of wide range, no recording" if run.recipe.source.kind == "signals" else \
        "the training repetitions of the data below"
    return common(run, rate_hz, parameters) | {
        "kind": "fins", "summary": f"FINs ({run.recipe.fin.family}) for {', '.join(run.recipe.features.names)}",
        "input": f"(B, {run.length}, any) standardised, at {rate_hz:g} Hz",
        "score": " ".join(f"{name} {s['r2']:.3f}" for name, s in scores.items()) and
                 "R² " + ", ".join(f"{name} {s['r2']:.3f}" for name, s in scores.items()),
        "scores": {"fin": scores, "protocol": f"FINs trained on windows of {source}; R² on test windows of the same "
                                              "source that were never trained on"},
        "limits": [
            "Each channel must be standardised (zero mean, unit variance over a training stretch) before it comes in; "
            "features are those of the standardised signal.",
            f"Windows of {run.length} samples at {rate_hz:g} Hz; nothing is resampled inside.",
            "Imitations, not exact values: amplitudes far outside the training range are extrapolated, and an offset "
            "of some standard deviations or single spikes break every family (R² below 0): filter them first.",
        ],
    }


def _protocol(run: Run, about: dict) -> str:
    train, test = (", ".join(map(str, about[f"{part}_repetitions"])) for part in ("train", "test"))
    tuned = ", ".join(map(str, about.get("finetune_repetitions", about["train_repetitions"])))
    return (f"{run.recipe.protocol}: trained on repetitions {train}, fine-tuned on {tuned}, scored on every window of "
            f"repetitions {test} of the same subject and session; windows of {run.recipe.window.length_ms:g} ms "
            f"every {run.recipe.window.stride_ms:g} ms, inside one movement")


def _decoder_limits(about: dict, own: dict) -> list[str]:
    decision = own["decision"]
    limits = [f"Made for subject {own['subject']} with the electrodes where they were: for another person, another "
              "session or moved electrodes, train anew.",
              f"Windows of {own['length']} samples, {own['channels']} channels in the recording's order, volts, at "
              f"{own['rate_hz']:g} Hz; nothing is filtered or resampled inside.",
              "Scores hold for windows inside one movement; transitions between movements were not scored.",
              _decided(decision),
              "Research software, no medical device."]
    if 0 not in own["movements"]:
        limits.insert(0, "It knows no rest: a window of rest is called the movement that it resembles most.")
    if about["synthetic"]:
        limits.insert(0, "Trained on synthetic recordings: it proves the plumbing and decodes nobody's hand.")
    return limits


def _decided(decision: dict) -> str:
    if decision == {"vote": 1, "reject": 0.0}:
        return "Every window is decided for itself: no vote, no rejection."
    return (f"The score is of decisions that average the last {decision['vote']} windows and reject those less "
            f"probable than {decision['reject']:g} (label -1, counted as wrong). `stream` decides so; "
            "`serving_default` answers windows one by one, without either.")


def write(version: Path, card: dict) -> None:
    """Writes model_card.json and README.md into a version folder whose other files are complete."""
    card["sha256"] = shelf.checksums(version)
    write_json(version / shelf.CARD, card)
    (version / "README.md").write_text(readme(card), encoding="utf-8")


def readme(card: dict) -> str:
    """A card for people, in Markdown."""
    rows = [("input", f"`emg` float32 {card['input']}"), ("features", ", ".join(card["features"])),
            ("parameters", f"{card['parameters']:,}"), ("score", card["score"]),
            ("protocol", card["scores"]["protocol"]),
            ("recipe", f"digest `{card['recipe_digest']}`, whole in model_card.json"),
            ("data", _data(card)), ("made by", f"tfkfin {card['tfkfin']}, {card['created'][:10]}, run {card['run']}"),
            ("licence", f"{card['licence']} (the weights; recordings keep their own terms)")]
    if card["kind"] == "decoder":
        rows.insert(1, ("labels", ", ".join(map(str, card["movements"])) + " (as in the files)"))
    fin = [f"| {name} | {s['r2']:.4f} |" for name, s in card["scores"]["fin"].items()]
    lines = [f"# {card['name']}, version {card['version']}", "", f"{card['summary'][0].upper()}{card['summary'][1:]}.",
             "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), "",
             *(["| imitated feature | R² |", "|---|---|", *fin, ""] if fin else []),
             "## Signatures", "", *_signatures(card), "", "## Limits", "", *(f"- {limit}" for limit in card["limits"]),
             "", "## Use", "", "```python", *_usage(card), "```", ""]
    return "\n".join(lines)


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
            "- `about`: any array -> `rate_hz`, `length`, `stride`, `vote`, `reject`, `movements`: what clients ask"]


def _usage(card: dict) -> list[str]:
    if card["format"] == "onnx":
        return ["import onnxruntime", 'session = onnxruntime.InferenceSession("model.onnx")',
                'answer = dict(zip([o.name for o in session.get_outputs()], session.run(None, {"emg": emg})))']
    return ["import tensorflow as tf  # tfkfin is not needed",
            f'serve = tf.saved_model.load("{card["name"]}/{card["version"]}").signatures["serving_default"]',
            "answer = serve(emg=tf.constant(emg, tf.float32))"]
