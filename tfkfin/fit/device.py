"""The devices that TensorFlow computes on, chosen before it starts; and one model trained on several GPUs of a machine.

Each batch is shared among replicas. Keras' optimisers clip the gradients of each replica before they add them up, so
that the sum is not what one process would clip. So the loop and the clipping are here: every replica takes its rows of
the batch that one process would take, and all of them make the step that one process would make. Rows that fill a batch
up to a multiple of the replicas have the weight 0.
"""

import functools
import os
from collections.abc import Callable, Sequence

from tfkfin.base.console import quiet_start
from tfkfin.base.errors import InputError
from tfkfin.base.quoted import line


@functools.cache
def started(name: str):
    """The strategy of a name, started once in a process, before TensorFlow computes anything; None for "default"."""
    import tensorflow as tf

    try:
        return tf.distribute.MirroredStrategy() if name == "mirrored" else None
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        if "TF_CONFIG" not in os.environ:
            raise
        raise InputError("--strategy mirrored: TensorFlow cannot read the environment variable TF_CONFIG "
                         f"({line(error, 100)}): unset it") from None


def set_up_device(device: str, mixed_precision: bool = False, strategy: str = "default") -> None:
    """Chooses "auto", "cpu" or "gpu"; GPU memory is taken as it is needed.

    `strategy`: "default" or "mirrored", which starts here too.
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


class Replicas:
    """A model's replicas, trained together. Make model and optimiser inside `strategy.scope()`.

    The optimiser may clip by global norm, and in no other way; it no longer does so itself.
    """

    def __init__(self, strategy, model, optimizer, loss: Callable):
        """`loss`: targets and outputs (B, ...) -> (B,)."""
        import tensorflow as tf

        self.strategy, most = strategy, optimizer.global_clipnorm
        optimizer.global_clipnorm = None

        def replica(x, y, weight, count):
            with tf.GradientTape() as tape:
                total = tf.reduce_sum(loss(y, model(x, training=True)) * weight) / count
            context = tf.distribute.get_replica_context()
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, tape.gradient(total, model.trainable_variables))
            if most:
                gradients, _ = tf.clip_by_global_norm(gradients, most)
            share = [gradient / context.num_replicas_in_sync for gradient in gradients]  # the optimiser adds them up
            optimizer.apply(share, model.trainable_variables)
            return total

        @tf.function(reduce_retracing=True)
        def step(batch):
            return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(replica, batch), axis=None)

        self._step = step

    def epoch(self, data, callbacks: Sequence = ()) -> float:
        """Trains once on batches (x, y) and calls the callbacks; returns the mean loss."""
        total = windows = 0.0
        for callback in callbacks:
            callback.on_train_begin()
        for i, batch in enumerate(self.strategy.distribute_datasets_from_function(
                lambda context: _rows(data, context.num_replicas_in_sync))):
            for callback in callbacks:
                callback.on_train_batch_begin(i)
            value, count = float(self._step(batch)), float(self.strategy.experimental_local_results(batch[3])[0])
            total, windows = total + value * count, windows + count
            for callback in callbacks:
                callback.on_train_batch_end(i, {"loss": value})
        return total / windows


def _rows(data, replicas: int):
    """What the replicas take of each batch, one after another: (x, y, weight (b,), number of windows in the batch)."""
    import tensorflow as tf

    def parts(x, y):
        count = tf.shape(x)[0]
        rows = tf.range(-(-count // replicas) * replicas)
        weight = tf.reshape(tf.cast(rows < count, tf.float32), [replicas, -1])

        def dealt(values):
            values = tf.gather(values, rows % count)
            return tf.reshape(values, tf.concat([[replicas, -1], tf.shape(values)[1:]], 0))

        whole = tf.fill([replicas], tf.cast(count, tf.float32))
        return tf.data.Dataset.from_tensor_slices((dealt(x), dealt(y), weight, whole))

    spec = data.element_spec
    found = data.flat_map(parts)
    return found.map(lambda x, y, weight, count: (tf.ensure_shape(x, spec[0].shape), tf.ensure_shape(y, spec[1].shape),
                                                  weight, count)).prefetch(2)
