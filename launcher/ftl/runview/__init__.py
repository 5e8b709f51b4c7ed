"""What people see of a run: its progress, and the panel at its end."""
