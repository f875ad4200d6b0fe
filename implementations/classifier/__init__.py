"""Setting `classifier`: a trained classifier is exposed, pictures of its classes are rebuilt."""
