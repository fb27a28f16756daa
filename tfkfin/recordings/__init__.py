"""Recordings: reading them whatever their format, checking them, fetching them, and making synthetic ones."""
