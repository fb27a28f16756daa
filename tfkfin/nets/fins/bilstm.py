"""Bi-LSTM FINs, the paper's family (§3.1): three bidirectional layers of 32 units read by their final states."""

import numpy as np

from tfkfin.nets.bilstm.layer import BiLSTM
from tfkfin.nets.fins import Family

STARTS = ("long_memory", "keras")


def body(inputs, options):
    """Standardised windows (N, L, 1) -> final states (N, 2 units), or (N, units) for the readout "reverse"."""
    if options.start not in STARTS:
        raise ValueError(f"`start` must be one of {STARTS}. Received: start={options.start!r}")
    lstms = BiLSTM(options.units, options.layers, readout=options.readout, name="bilstm")
    x = lstms(inputs)
    if options.start == "long_memory":
        start_with_long_memory(lstms, inputs.shape[1])
    return x


def start_with_long_memory(body: BiLSTM, length: int) -> None:
    """Gives a Bi-LSTM random weights from which averages over a window are near: the FINs' own start.

    A gate bias of 1, Keras's default, forgets within four samples of 600. Here every unit remembers for a time drawn
    log-uniformly from 10 samples to twice the window, and takes in as much less a step: biases log T of the forget and
    -log T of the input gate (chrono initialisation, Tallec and Ollivier, ICLR 2018). The first layer's units respond
    to the signal at scattered slopes and thresholds, a few standard deviations wide, so that its states are averages
    of random sigmoidal features of the samples, with little feedback between units.
    """
    rng = np.random.default_rng(np.random.randint(2**31))  # the global state that keras.utils.set_random_seed sets
    for i, pair in enumerate(body.pairs):
        for lstm in pair:
            kernel, recurrent, bias = lstm.get_weights()  # gates in Keras's order: input, forget, cell, output
            taking, keeping, cell, showing = (slice(k * lstm.units, (k + 1) * lstm.units) for k in range(4))
            memory = np.exp(rng.uniform(np.log(10), np.log(2 * length), lstm.units))  # samples
            bias[keeping], bias[taking] = np.log(memory), -np.log(memory)
            if i == 0:
                slope = rng.choice([-1.0, 1.0], lstm.units) * np.exp(rng.uniform(np.log(0.1), np.log(2), lstm.units))
                kernel[:, cell] = slope
                bias[cell] = -slope * rng.normal(0, 2.5, lstm.units)  # thresholds in sd
                for gate, sd in ((taking, 0.7), (keeping, 0.02), (showing, 0.05)):
                    kernel[:, gate] = rng.normal(0, sd, (kernel.shape[0], lstm.units))
                recurrent *= 0.2
            lstm.set_weights([kernel, recurrent, bias])


FAMILY = Family(body, layers=3)
