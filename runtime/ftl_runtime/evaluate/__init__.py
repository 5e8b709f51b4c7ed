"""What a model writes, beside the loss: answers to prompts of the evaluation rows, and how near they come."""
