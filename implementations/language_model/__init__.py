"""Language models: a generative model trained on private text is exposed; the adversary extracts what it memorised."""
