"""Models by name: shipped ones, exported ones and those on the Hugging Face Hub, and the FINs inside them."""

import functools
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfkfin import recipe as recipes
from tfkfin.base.console import log
from tfkfin.base.errors import InputError
from tfkfin.base.files import shipped
from tfkfin.store import folders

ASKED = ("family", "units", "layers", "readout")  # options that decide a FIN's layers

if TYPE_CHECKING:
    import keras  # finding and describing models loads no TensorFlow


def find(name: str | Path) -> Path:
    """The version folder that a name means: of a folder, a shipped model or FIN family, or a model in ./savedmodels.

    hf://user/name is one on the Hugging Face Hub.

    Raises:
        InputError: there is none.
    """
    if str(name).startswith("hf:"):
        from tfkfin.store import hub

        return hub.pull(str(name))
    ours = shipped("savedmodels")
    for folder in (Path(name), ours / name, ours / f"fin_{name}", Path("savedmodels") / name):
        if version := folders.newest(folder):
            return version
    known = ", ".join(path.name for path in folders.models(ours)) or "the shipped ones (there are none)"
    raise InputError(f"no model in {name}, and none of that name: give a folder that python -m tfkfin.export made, or "
                     f"one of {known}")


def load(name: str | Path) -> "keras.Model":
    """A trained bank of FINs on one channel, (B, L, 1) -> (B, 1, F).

    `name` may also be a run's folder of imitate or pooled.

    Raises:
        InputError: no such model, or it holds no FINs to start from.
    """
    own = Path(name, folders.FINS_FILE.name)
    path = own if own.is_file() else find(name) / folders.FINS_FILE
    if not path.is_file():
        raise InputError(f"{path.parents[1]} holds no FINs to start from ({folders.FINS_FILE} is missing)")
    from tfkfin.nets import saving

    folders.verify(path.parent if path == own else path.parents[1])
    try:
        return saving.load(path)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise InputError(f"{path} cannot be loaded: {' '.join(str(error).split())[:200]}") from None


def shared_bank(options: recipes.Fin, features: tuple[str, ...], length: int, channels: int) -> "keras.Model":
    """As `new_bank`, for networks that do not train their FINs: shipped FINs are one object for all of them.

    So what `tfkfin.nets.forward` compiles for one network serves the next one.
    """
    shared = options.pretrained == "auto" and features
    return (_shipped_bank if shared else new_bank)(options, features, length, channels)


def new_bank(options: recipes.Fin, features: tuple[str, ...], length: int, channels: int,
             started: bool = True) -> "keras.Model":
    """A bank for a recipe: the pretrained FINs where there are some of its features, others with random weights.

    Args:
        started: False leaves all weights at random; FINs have the pretrained ones' layers all the same.
    """
    from tfkfin.nets import fins

    trained, source = {}, options.family if options.pretrained == "auto" else options.pretrained
    if options.pretrained and features:
        trained = {model.name: model for model in fins.fins_of(load(source))}
    built = [fins.fin(name, length, options.family, options.units, options.layers, options.readout, options.start,
                      options.version) for name in features]
    if trained:
        built = [_like(trained.get(model.name), model, options, source, started) for model in built]
    return fins.bank(built, channels, length)


def learnt_from(recipe: "recipes.Recipe") -> list[str]:
    """Repetitions whose labels taught the FINs that a recipe starts from, by their `recordings.recording.digests`."""
    named = recipe.features.names and recipe.fin.pretrained not in ("", "auto")
    return _card(recipe.fin.pretrained).get("learnt_from", []) if named else []


_shipped_bank = functools.lru_cache(8)(new_bank)


def _like(trained: "keras.Model | None", model: "keras.Model", options: recipes.Fin, source: str,
          started: bool) -> "keras.Model":
    """`model` with the weights of `trained`; a copy of that where the family had other layers when it was trained."""
    if trained is None:
        log.info("%s has no %s: it starts from random weights", source, model.name)
        return model
    if _shape(trained) != _shape(model):
        of_trained = _card(source).get("recipe", {}).get("fin", {})
        if _asked(options) != _asked(recipes.Fin.model_validate({k: of_trained[k] for k in ASKED if k in of_trained})):
            raise InputError(f"the pretrained {model.name} of {source!r} has another shape than [fin] asks for: "
                             "set fin.pretrained to \"\" or family, units, layers, readout to the pretrained model's")
        import keras

        model = keras.models.clone_model(trained, input_tensors=keras.Input(model.input_shape[1:], name="emg"))
    if started:
        model.set_weights(trained.get_weights())
    return model


def _shape(fin: "keras.Model") -> tuple:
    """What two FINs that compute the same from the same weights have in common, whatever their precision."""
    scale = fin.get_layer("scale")
    return [type(layer).__name__ for layer in fin.layers], [tuple(w.shape) for w in fin.weights], scale.log, scale.most


def _asked(options: recipes.Fin) -> tuple:
    return tuple(getattr(options, name) for name in ASKED)


def _card(source: str) -> dict[str, Any]:
    folder = Path(source)
    return folders.card(folder if (folder / folders.FINS_FILE.name).is_file() else find(source))


def __getattr__(name: str) -> Any:
    """Functions of model folders by their old place."""
    if name not in ("card", "changed", "verify", "newest"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{__name__}.{name} is tfkfin.store.folders.{name} now", DeprecationWarning, stacklevel=2)
    return getattr(folders, name)
