"""A decoder on a person, or on a recording as if it were one: sources, the stream, the loop, timing, outputs."""
