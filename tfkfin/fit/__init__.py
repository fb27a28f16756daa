"""The staged fit: run folders and their ledger, stages, scores, baselines, TensorBoard, search."""
