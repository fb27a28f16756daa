"""Recordings: reading them, cutting windows, splitting by repetition, and making synthetic ones. No TensorFlow here."""
