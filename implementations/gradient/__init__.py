"""Setting `gradient`: the updates of federated or distributed learning are exposed; the adversary rebuilds the batch."""
