"""Checkpoints: written whole or not at all, and believed only after their bytes were compared with a manifest."""
