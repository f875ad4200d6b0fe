"""What both unseen evaluators say together, for claims about being recognised."""

from ..experiment import Metrics


def recognised(metrics: Metrics) -> float:
    """Share of reconstructions taken for the right class, in [0, 1]: the mean of two unseen evaluators of different kinds."""
    return (metrics["accuracy_top1"] + metrics["accuracy_second"]) / 2
