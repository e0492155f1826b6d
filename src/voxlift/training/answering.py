"""Load a trained model so that it answers fast."""

from pathlib import Path

from voxlift.inference.saved_model import SavedModel, load_model
from voxlift.training.hardware import Device, prepare_memory_format


def load_answering(model: str | Path, *, device: Device) -> SavedModel:
    """Load a model; large maps are computed faster in another memory format."""
    saved = load_model(model, device=device)
    if saved.head.task in ("segment", "detect"):
        for network in saved.networks:
            prepare_memory_format(network, device)
    return saved
