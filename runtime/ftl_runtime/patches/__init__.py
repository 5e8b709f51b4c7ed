"""Faults of other packages, mended until they are mended there: one file a fault."""
