"""Where TensorFlow computes: chosen before it starts there."""

from tfkfin.console import InputError, quiet_start


def set_up_device(device: str, mixed_precision: bool = False) -> None:
    """Chooses "auto", "cpu" or "gpu" before TensorFlow starts on one. GPU memory grows as needed, not taken whole."""
    with quiet_start():
        import keras
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
    if device == "gpu" and not gpus:
        raise InputError("--device gpu: TensorFlow sees no GPU here")
    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    else:
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    if mixed_precision and (device == "cpu" or not gpus):
        raise InputError("--mixed-precision pays on a GPU only, and none is used here")
    if mixed_precision:
        keras.mixed_precision.set_global_policy("mixed_float16")
    with quiet_start():
        tf.zeros(1)  # starts the devices
