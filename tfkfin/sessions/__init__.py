"""Statistics of sessions, in NumPy and SciPy alone: what earlier sessions say of a new one, and how it is adapted to.

`statistics` (sums over labelled windows) <- `prior` (the model, fitted to earlier sessions) <- `posterior` (a session,
given windows of it) <- `online` (the same while it is decided). A window is a row of D features, whatever these are.
"""
