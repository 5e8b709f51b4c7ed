"""The training config: one schema, read by the launcher and by the runtime."""
