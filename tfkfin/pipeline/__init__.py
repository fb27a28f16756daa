"""From recordings to batches: windows, splits, standardised stretches, and the one tf.data graph."""
