"""Setting `split`: a network is cut between a client and a server; the server sees the activations that cross the cut."""
