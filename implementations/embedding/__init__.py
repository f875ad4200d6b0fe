"""Embeddings: vectors that a sentence encoder made of private texts are exposed; the adversary rebuilds the texts."""
