"""The training loop: transformers' Trainer with our losses, our checkpoints and our way to stop."""
