"""Setting `graph`: graph neural networks trained on private graphs are exposed; the edges are rebuilt."""
