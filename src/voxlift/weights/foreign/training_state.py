"""What checkpoints hold of the training beside the network."""

from collections.abc import Iterable

OF_TRAINING = ("optim", "scaler", "scheduler")
REASON = "state of the training, not of the network"


def training_state(entries: Iterable[str]) -> dict[str, str]:
    """Name the entries that are state of a training, and why they are of no use.

    Args:
        entries: Names of what stands beside the tensors.
    """
    return {name: REASON for name in entries if any(part in name.lower() for part in OF_TRAINING)}
