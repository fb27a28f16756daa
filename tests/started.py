"""Python in a process of its own: what it said and how it ended."""

import subprocess


def run(words, timeout: float = 300, capture_output: bool = True, text: bool = True, **options):
    """As `subprocess.run`."""
    return subprocess.run(words, timeout=timeout, capture_output=capture_output, text=text, **options)
