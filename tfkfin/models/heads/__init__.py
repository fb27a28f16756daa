"""Heads, from features to movements: one module a kind."""
