"""Weight files: a file in, tensors and a description out."""
