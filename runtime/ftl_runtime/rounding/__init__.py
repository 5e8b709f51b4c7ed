"""Weights and activations rounded to few bits by torchao, in training and once trained."""
