"""Closed-form features: one catalogue of names, formulas and units, computed directly or from sums over blocks."""
