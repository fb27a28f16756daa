"""Feature imitation networks for surface EMG in TensorFlow and Keras 3."""

__version__ = "0.1.0"
