"""A runtime of the standard library alone: it keeps the contract and trains nothing."""
