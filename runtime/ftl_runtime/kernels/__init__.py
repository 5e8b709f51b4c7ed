"""What is computed in a way of our own, because it is faster or smaller: attention within documents, the last layer."""
