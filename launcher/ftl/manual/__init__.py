"""What every key of a training config means: as a JSON Schema, as pages of a manual, in one's own file."""
