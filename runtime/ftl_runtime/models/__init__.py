"""From config sections to a model, its tokenizer and its adapter."""
