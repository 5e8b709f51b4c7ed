"""Other programs' ways of saying what to train -> an equivalent config and cloud file, and what became of each part."""
