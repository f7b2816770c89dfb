"""Flower as operators get it from ``vmferry flower``."""
