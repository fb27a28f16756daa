"""FINs and classifier as one model, trained with a learning rate each."""

import keras
import tensorflow as tf

from tfkfin.models.layers import Correlations


@keras.saving.register_keras_serializable(package="tfkfin")
class Joint(keras.Model):
    """Standardised windows (B, L, C) -> {"probabilities": (B, G), "features": (B, C, F) own units}.

    A functional model whose training step gives the FINs and the head an optimiser each (paper's code: Adam 1e-3 and
    1e-2). Build it with `joint(bank, classifier)`; call `set_optimizers` before `fit`.
    """

    def set_optimizers(self, fin: keras.optimizers.Optimizer | None, head: keras.optimizers.Optimizer) -> None:
        """`fin=None` freezes the FINs."""
        self.fin_optimizer, self.head_optimizer = fin, head
        bank, head_model = self.get_layer("fins"), self.get_layer("classifier")
        bank.trainable = fin is not None
        if fin is not None:
            fin.build(bank.trainable_variables)
        head.build(head_model.trainable_variables)

    def train_step(self, data):
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            predicted = self(x, training=True)
            loss = self.compute_loss(x, y, predicted, weight)
        parts = [(self.head_optimizer, self.get_layer("classifier"))]
        if self.fin_optimizer is not None:
            parts.append((self.fin_optimizer, self.get_layer("fins")))
        gradients = tape.gradient(loss, [part.trainable_variables for _, part in parts])
        for (optimizer, part), gradient in zip(parts, gradients, strict=True):
            optimizer.apply(gradient, part.trainable_variables)
        self._loss_tracker.update_state(loss, sample_weight=tf.shape(tf.nest.flatten(x)[0])[0])
        return self.compute_metrics(x, y, predicted, weight)


def joint(bank: keras.Model, classifier: keras.Model, lags: tuple[int, ...] = (),
          augment: keras.layers.Layer | None = None) -> Joint:
    """Wires a bank of FINs (B, L, C) -> (B, C, F) in front of a classifier (B, C, F) -> (B, G).

    A classifier with a second input takes the window's correlations (at `lags`) there. `augment` changes windows
    in training.
    """
    inputs = keras.Input(bank.input_shape[1:], name="emg")
    windows = inputs if augment is None else augment(inputs)
    features = bank(windows)
    seen = [features, Correlations(lags, name="correlate")(windows)] if len(classifier.inputs) > 1 else features
    outputs = {"probabilities": classifier(seen), "features": features}
    return Joint(inputs, outputs, name="joint")
