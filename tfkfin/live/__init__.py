"""A decoder on a live signal, or on a recording as if it were one: sources, stream, loop, timing, outputs."""
