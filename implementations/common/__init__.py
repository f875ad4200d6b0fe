"""Boring, tested, shared: data, small networks, training, metrics, the cache, plots. No paper's own idea lives here."""
