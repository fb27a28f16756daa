"""From recordings to batches: segments, splits, windows, standardisation, and the one tf.data graph."""
