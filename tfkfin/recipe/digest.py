"""Which options decide a recipe's digest: a run folder belongs to one digest.

A new option at its default leaves the digest as it was before there was the option, so that runs of earlier versions
go on. Options of the versions before that rule are part of every digest; they are listed here, once and for all.
"""

import hashlib
import json

from tfkfin.recipe.bounds import Section

_ALWAYS = {
    "": "protocol seed tune",
    "source": "kind exercise",
    "source.synthetic": "subjects movements repetitions channels rate_hz hold_s rest_s seed",
    "window": "length_ms stride_ms train_stride_ms rate_hz rest",
    "filter": "high_pass_hz low_pass_hz order notch_hz notches notch_q",
    "features": "names",
    "split": "subjects train_repetitions test_repetitions train_sessions test_sessions repetitions_per_session "
             "pretrain_subjects pretrain_repetitions finetune_repetitions",
    "batches": "recordings_in_flight prefetch",
    "fin": "family units layers readout start pretrained",
    "classifier": "kind describe lags vote reject filters copies noise dropout",
    "augment": "gain shift noise warp dropout",
    "imitate": "epochs windows_per_epoch batch_size learning_rate weight_decay clip_norm patience schedule "
               "validation_windows test_windows",
    "classify": "epochs batch_size learning_rate weight_decay schedule",
    "finetune": "epochs windows_per_epoch batch_size fin_learning_rate fin_weight_decay head_learning_rate "
                "head_weight_decay imitation_weight freeze_norm schedule",
    "pooled": "episodes movements seconds stride_ms between learning_rate weight_decay clip_norm imitation_weight "
              "look_every validation_episodes",
}
_NEVER = ("source.data", "source.note", "launch")  # places and notes decide nothing


def digest(recipe: Section, unused: tuple[str, ...]) -> str:
    """Hex digest of the options that decide the result; tables that are `unused` are left out."""
    options = _deciding(recipe, recipe.model_dump(mode="json", exclude=set(unused)), "")
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:12]


def _deciding(section: Section, dumped: dict, prefix: str) -> dict:
    always, usual, found = _ALWAYS.get(prefix.rstrip("."), "").split(), type(section)(), {}
    for name, value in dumped.items():
        own = getattr(section, name)
        if prefix + name in _NEVER:
            continue
        if isinstance(own, Section):
            if part := _deciding(own, value, f"{prefix}{name}."):
                found[name] = part
        elif name in always or own != getattr(usual, name):
            found[name] = value
    return found
