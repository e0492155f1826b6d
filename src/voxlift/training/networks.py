"""The networks of runs, from their configs."""

import torch
from torch import nn

from voxlift.config import DetectConfig, NetworkConfig, RunConfig, SegmentConfig
from voxlift.core.geometry import Geometry
from voxlift.core.randomness import derive_seed
from voxlift.nets.classifier import Classifier
from voxlift.nets.detector import Detector
from voxlift.nets.encoder import Encoder
from voxlift.nets.factory import SCRATCH, create_backbone, create_model, make_backbone
from voxlift.nets.norm import apply_norm_mode
from voxlift.training.detection import DetectionData
from voxlift.training.hardware import choose_device, prepare_memory_format
from voxlift.training.segmentation import SegmentationData
from voxlift.weights.load import load_weights
from voxlift.weights.parts import take_for_transform
from voxlift.weights.source import read_source


def build_classifier(
    config: RunConfig, *, geometry: Geometry, num_classes: int, dropout: float = 0.0
) -> Classifier:
    """Make the network of a classification, with its start."""
    backbone = _build_backbone(config, geometry=geometry)
    model = Classifier(backbone, num_classes=num_classes, dropout=dropout)
    prepare_memory_format(model, choose_device(config.machine))
    return model


def build_segmenter(config: SegmentConfig, data: SegmentationData) -> nn.Module:
    """Make the network of a segmentation, with its start."""
    backbone = _build_backbone(
        config, geometry=data.geometry, in_channels=data.preprocessing.in_channels
    )
    apply_norm_mode(backbone, config.norm_mode)
    model = create_model(
        "segment",
        backbone=backbone,
        num_classes=data.cases.labels.num_outputs,
        decoder=config.decoder,
        deep_supervision=config.deep_supervision,
    )
    prepare_memory_format(model, choose_device(config.machine))
    return model


def build_detector(config: DetectConfig, data: DetectionData) -> Detector:
    """Make the network of a detection, with its start: of a detector, all that fits of its head."""
    torch.manual_seed(derive_seed(config.seed, "init"))
    network: NetworkConfig = config.network
    file = None
    if network.weights != SCRATCH:
        file = take_for_transform(read_source(network.weights), config.slice_transform)
    backbone = make_backbone(
        network.backbone,
        geometry=data.geometry,
        in_channels=1,
        width=network.width,
        stem=network.stem,
        norm=network.norm,
        file=file,
        num_slices=data.settings.num_slices,
        slice_transform=config.slice_transform,
        slice_start=config.slice_start,
        zero_init_residual=network.zero_init_residual,
        checkpointing=network.checkpointing,
    )
    model = Detector(
        backbone, num_classes=data.settings.num_classes, settings=data.settings.detector
    )
    if file is not None:
        load_weights(model, file, preprocessing=data.preprocessing)
    apply_norm_mode(backbone, config.norm_mode)
    prepare_memory_format(model, choose_device(config.machine))
    return model


def _build_backbone(config: RunConfig, *, geometry: Geometry, in_channels: int = 1) -> Encoder:
    torch.manual_seed(derive_seed(config.seed, "init"))
    network: NetworkConfig = config.network
    return create_backbone(
        network.backbone,
        geometry=geometry,
        in_channels=in_channels,
        width=network.width,
        stem=network.stem,
        norm=network.norm,
        weights=network.weights,
        num_slices=0,
        zero_init_residual=network.zero_init_residual,
        checkpointing=network.checkpointing,
    )
