"""One model trained on several GPUs or machines at once: each batch is shared among replicas.

Keras 3's `fit` fails under MultiWorkerMirroredStrategy (keras issue 20585), and its optimisers clip what each replica
has found before they add it up. So the loop and the clipping are here: every replica takes its rows of the batch that
one process would take, and all make the step that one would make. Rows that fill a batch up to a multiple of the
replicas weigh nothing.
"""

import functools
import os
from collections.abc import Callable, Sequence

from tfkfin.base.console import InputError, log

NAMES = ("default", "mirrored", "multiworker")


@functools.cache
def started(name: str):
    """The strategy of a name, started once in a process, before TensorFlow computes anything; None for "default".

    Raises:
        InputError: "multiworker" without a cluster in TF_CONFIG.
    """
    import tensorflow as tf

    if name == "default":
        return None
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if "TF_CONFIG" not in os.environ:
        raise InputError("--strategy multiworker: TF_CONFIG names no cluster: see docs/scale.md")
    try:
        found = tf.distribute.MultiWorkerMirroredStrategy()
    except ValueError as error:
        raise InputError(f"--strategy multiworker: TF_CONFIG does not do: {error}") from None
    log.info("worker %s, %d replicas in all", found.cluster_resolver.task_id, found.num_replicas_in_sync)
    return found


def index(name: str) -> int:
    """Which of the workers this process is; 0 is the one that writes."""
    if name != "multiworker":
        return 0
    return started(name).cluster_resolver.task_id or 0


def watched(name: str, work: Callable):
    """What `work` returns.

    Raises:
        InputError: another worker has gone.
    """
    import tensorflow as tf

    try:
        return work()
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError,
            tf.errors.DeadlineExceededError) as error:
        if name != "multiworker":
            raise
        raise InputError(f"another worker has gone ({type(error).__name__}): start all of them again, with the same "
                         "command; they go on after the last epoch") from None


class Replicas:
    """A model's replicas, trained together. Make model and optimiser inside `strategy.scope()`.

    The optimiser may clip by global norm, and in no other way; from now on it does not itself.
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

        @tf.function
        def agree(value):
            return strategy.reduce(tf.distribute.ReduceOp.MEAN, strategy.run(tf.identity, (value,)), axis=None)

        self._step, self._agree = step, agree

    def epoch(self, data, callbacks: Sequence = ()) -> float:
        """Trains on batches (x, y), the same in every process, once; returns the mean loss. Callbacks are told."""
        total = seen = 0.0
        for callback in callbacks:
            callback.on_train_begin()
        for i, batch in enumerate(self.strategy.distribute_datasets_from_function(lambda who: _rows(data, who))):
            for callback in callbacks:
                callback.on_train_batch_begin(i)
            value, count = float(self._step(batch)), float(self.strategy.experimental_local_results(batch[3])[0])
            total, seen = total + value * count, seen + count
            for callback in callbacks:
                callback.on_train_batch_end(i, {"loss": value})
        return total / seen

    def agreed(self, value: float) -> float:
        """The mean of what the workers found, so that all of them decide alike."""
        import tensorflow as tf

        return float(self._agree(tf.constant(value, tf.float64)))


def _rows(data, who):
    """What the replicas of one process take of each batch, one after another: (x, y, weight (b,), windows of all)."""
    import tensorflow as tf

    replicas = who.num_replicas_in_sync
    here = replicas // who.num_input_pipelines
    first = who.input_pipeline_id * here

    def parts(x, y):
        count = tf.shape(x)[0]
        rows = tf.range(-(-count // replicas) * replicas)
        weight = tf.cast(rows < count, tf.float32)

        def dealt(values):
            values = tf.gather(values, rows % count)
            return tf.reshape(values, tf.concat([[replicas, -1], tf.shape(values)[1:]], 0))[first : first + here]

        whole = tf.fill([here], tf.cast(count, tf.float32))
        weight = tf.reshape(weight, [replicas, -1])[first : first + here]
        return tf.data.Dataset.from_tensor_slices((dealt(x), dealt(y), weight, whole))

    spec = data.element_spec
    found = data.flat_map(parts)
    return found.map(lambda x, y, weight, count: (tf.ensure_shape(x, spec[0].shape), tf.ensure_shape(y, spec[1].shape),
                                                  weight, count)).prefetch(2)
