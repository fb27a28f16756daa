"""Keras models: feature imitation networks, augmentation, classifier, and the two joined."""
