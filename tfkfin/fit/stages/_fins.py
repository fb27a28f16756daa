"""What stages that train FINs share: checkpoints, the best weights, the FINs as others start from and export them."""

import shutil
from pathlib import Path

import keras
import tensorflow as tf

from tfkfin.base.console import InputError
from tfkfin.base.files import replacing, write_json
from tfkfin.fit.run import Run
from tfkfin.nets import saving
from tfkfin.store import presets


def keep(run: Run, bank: keras.Model, folder: Path, scores: dict) -> None:
    """Writes FINs to start from and to export, with their card."""
    with replacing(folder / presets.FINS_FILE.name) as path:
        on_one_channel(run, bank).save(path)
    write_json(folder / presets.CARD, run.card() | {"kind": "fins", "parameters": bank.count_params(),
                                                    "scores": scores})


def restored(checkpoints: tf.train.CheckpointManager, stage: str) -> bool:
    """Whether there was a checkpoint to go on from.

    Raises:
        InputError: there was, and it is damaged.
    """
    for half in Path(checkpoints.directory).glob("*_temp"):  # of a process that was killed as it wrote
        shutil.rmtree(half, ignore_errors=True)
    try:
        return checkpoints.restore_or_initialize() is not None
    except Exception as error:  # TensorFlow's own errors, or those of a parser
        raise InputError(f"{checkpoints.directory} is damaged: remove it, and the same command begins the stage "
                         f"{stage} anew") from error


def improve(bank: keras.Model, value: float, state: dict, best: Path) -> None:
    """The weights are kept if their validation loss is the best so far."""
    if value < float(state["best"]):
        saving.save_weights(bank, best)
        state["best"].assign(value)
        state["stale"].assign(0)
    else:
        state["stale"].assign_add(1)


def on_one_channel(run: Run, bank: keras.Model) -> keras.Model:
    """The FINs to start from and to export, on one channel, in float32 whatever they were trained in."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        options = run.recipe.fin.model_copy(update={"pretrained": ""})
        one = presets.new_bank(options, run.recipe.features.names, run.length, 1)
    finally:
        keras.config.set_dtype_policy(policy)
    one.set_weights(bank.get_weights())
    return one
