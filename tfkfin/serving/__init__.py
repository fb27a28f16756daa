"""Serving: SavedModels with named signatures, ONNX files, their cards and folders, and clients for TF Serving."""
