"""The stacked Bi-LSTM: the Keras layer, its C kernel for CPUs, and the same on stock TensorFlow operations."""
