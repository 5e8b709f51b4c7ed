"""Dataset formats as data: rows become text segments with a mask. Standard library only, and yaml for YAML answers."""
