"""Reads recordings of any supported format, checks them, downloads them, and makes synthetic ones."""
