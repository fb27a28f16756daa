"""Closed-form features: one catalogue of names, formulas and units, computed directly or streamed."""
