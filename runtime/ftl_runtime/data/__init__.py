"""From data files to batches; README.md lists the stages."""
