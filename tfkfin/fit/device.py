"""The device that TensorFlow computes on: chosen before TensorFlow starts."""

import functools

from tfkfin.base.console import quiet_start
from tfkfin.base.errors import InputError
from tfkfin.fit.strategy import started


def set_up_device(device: str, mixed_precision: bool = False, strategy: str = "default") -> None:
    """Chooses "auto", "cpu" or "gpu"; GPU memory is taken as it is needed.

    `strategy`: one of `tfkfin.fit.strategy.NAMES`, which starts here too.
    """
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
        started(strategy)
        tf.zeros(1)  # starts the devices


@functools.cache
def set_up_worker(device: str, mixed_precision: bool = False) -> None:
    """The same, once in a process that does several fits, each with graphs of its own."""
    set_up_device(device, mixed_precision)
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # TensorFlow warns of many traced graphs, which are intended here
