"""Small classifiers that are saved without having been trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from voxlift.core.architecture import Architecture
from voxlift.core.geometry import named_geometry
from voxlift.core.preprocessing import Preprocessing
from voxlift.inference.saved_model import SavedModel
from voxlift.nets.classifier import Classifier
from voxlift.nets.resnet import ResNet
from voxlift.weights.header import HeadDescription
from voxlift.weights.save import save_weights

SIZE = (8, 8, 8)
CT = Preprocessing(
    unit="HU", intensity="window", window=(-1000, 1000), mean=0.5, std=0.2, size_voxels=SIZE
)


def make_network(num_classes: int = 2, *, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    architecture = Architecture(name="resnet10", width=4, stem_kernel=3)
    network = Classifier(ResNet(architecture, named_geometry("small")), num_classes=num_classes)
    # Unlike a new head, one with an opinion.
    torch.nn.init.normal_(network.head.weight, std=0.5)
    return network.eval()


def make_head(*class_names: str, **changes: Any) -> HeadDescription:
    return HeadDescription(
        task="classify", num_classes=len(class_names), class_names=class_names, **changes
    )


@pytest.fixture
def make_model() -> Callable[..., SavedModel]:
    """Make a model of two classes, or of those named."""

    def make(*class_names: str, seed: int = 0, **changes: Any) -> SavedModel:
        names = class_names or ("benign", "malignant")
        network = make_network(len(names), seed=seed)
        return SavedModel((network,), make_head(*names, **changes), CT)

    return make


@pytest.fixture
def save_model() -> Callable[..., Path]:
    """Save a model of two classes, or of those named, at a path."""

    def save(
        path: Path,
        *class_names: str,
        seed: int = 0,
        preprocessing: Preprocessing = CT,
        **changes: Any,
    ) -> Path:
        names = class_names or ("benign", "malignant")
        return save_weights(
            make_network(len(names), seed=seed),
            path,
            preprocessing=preprocessing,
            head=make_head(*names, **changes),
        )

    return save
