"""Merging a trained adapter into its base."""
