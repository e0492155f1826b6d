"""A saved model, ready to answer: network, preprocessing and the meaning of its outputs."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from voxlift.core.detection_settings import DetectionSettings
from voxlift.core.errors import WeightsError
from voxlift.core.preprocessing import Preprocessing
from voxlift.core.segmentation_settings import SegmentationSettings
from voxlift.nets.buildable import check_buildable
from voxlift.nets.factory import backbone_class, create_model
from voxlift.weights.header import HeadDescription, WeightHeader
from voxlift.weights.load import load_weights
from voxlift.weights.source import read_source


@dataclass(frozen=True)
class SavedModel:
    """One trained network, or several of the same kind whose probabilities are averaged.

    Args:
        networks: The networks, in evaluation mode.
        head: What their outputs mean.
        preprocessing: What has to be done to a volume first.
    """

    networks: tuple[nn.Module, ...]
    head: HeadDescription
    preprocessing: Preprocessing

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of the outputs."""
        return self.head.class_names or tuple(str(i) for i in range(self.head.num_classes))

    @property
    def segmentation(self) -> SegmentationSettings:
        """What a segmenter needs to know beside its tensors."""
        return SegmentationSettings.model_validate(self.head.settings)

    @property
    def detection(self) -> DetectionSettings:
        """What a detector needs to know beside its tensors."""
        return DetectionSettings.model_validate(self.head.settings)

    @torch.inference_mode()
    def probabilities(self, volumes: torch.Tensor) -> torch.Tensor:
        """Average the class probabilities of all networks.

        Shape:
            `(batch, channels, depth, height, width)` -> `(batch, classes)`, on the CPU.
        """
        parameter = next(self.networks[0].parameters())
        volumes = volumes.to(parameter.device)
        answers = [network(volumes).float().softmax(1) for network in self.networks]
        return torch.stack(answers).mean(0).cpu()


def find_models(source: str | Path) -> list[str | Path]:
    """Find the weight files that `MODEL` on the command line stands for.

    Args:
        source: A bundled start, a weight file, a run folder with a `model.safetensors`, or the
            folder of a run with folds, whose models are then averaged.

    Raises:
        WeightsError: If a folder holds no model.
    """
    path = Path(source)
    if not path.is_dir():
        return [source]
    single = path / "model.safetensors"
    if single.is_file():
        return [single]
    folds = sorted(path.glob("fold-*/model.safetensors"))
    if not folds:
        raise WeightsError(
            f"{path} holds no model.safetensors, nor folds with one; the run may not be finished. "
            "Go on with it (--resume), make a model of its checkpoint (voxlift convert "
            f"{path / 'checkpoints' / 'last.ckpt'} --out model.safetensors), or give a weight file."
        )
    return list(folds)


def load_model(source: str | Path, *, device: str = "cpu") -> SavedModel:
    """Rebuild a trained model, or the average of a run's folds, from its files.

    The threshold of an average is the mean of the folds' thresholds, each of which was chosen on
    the validation cases of its fold.

    Args:
        source: See `find_models`.
        device: Where the networks are put.

    Raises:
        WeightsError: If a file cannot be trusted, or is a backbone without a head; or if folds are
            missing.
    """
    files = [read_source(each) for each in find_models(source)]
    networks = []
    for file in files:
        header = file.header
        if header.head is None or header.preprocessing is None:
            raise WeightsError(
                f"{file.path} is a backbone alone: it says nothing about classes or preprocessing, "
                "so it cannot answer. Fine-tune it first: voxlift finetune --weights "
                f"{file.path.name} --data ..."
            )
        check_buildable(partial(build_model, header), file)
        network = build_model(header)
        load_weights(network, file, head="required", min_coverage=1.0)
        networks.append(network.eval().to(device))
    headers = [file.header for file in files]
    if any(_question(header) != _question(headers[0]) for header in headers):
        raise WeightsError(
            f"The folds of {source} were trained with different classes or preprocessing and "
            "cannot be averaged. Give the weight file of one of them."
        )
    head, preprocessing = headers[0].head, headers[0].preprocessing
    assert head is not None
    assert preprocessing is not None
    if files[0].path.parent.parent == Path(source) and len(files) != head.settings.get("folds"):
        raise WeightsError(
            f"{source} holds {len(files)} of {head.settings.get('folds')} folds: the run is not "
            "finished. Go on with it (--resume), or give the weight file of one fold."
        )
    thresholds = [h.head.threshold for h in headers if h.head and h.head.threshold is not None]
    threshold = sum(thresholds) / len(thresholds) if thresholds else None
    head = head.model_copy(update={"threshold": threshold})
    return SavedModel(tuple(networks), head, preprocessing)


def build_model(header: WeightHeader) -> nn.Module:
    """Make the network with a head that a file describes, without its weights.

    Args:
        header: Of a file with a head.
    """
    head = header.head
    assert head is not None
    backbone = backbone_class(header.architecture)(header.architecture, header.geometry)
    if head.task in ("classify", "pretrain"):
        return create_model("classify", backbone=backbone, num_classes=head.num_classes)
    if head.task == "detect":
        found = DetectionSettings.model_validate(head.settings)
        return create_model(
            "detect", backbone=backbone, num_classes=head.num_classes, detector=found.detector
        )
    if head.task != "segment":
        raise WeightsError(
            f"The file holds a model of the task {head.task!r}; known are classify, pretrain, "
            "segment and detect. Update Voxlift, or load the backbone alone with "
            "create_backbone(weights=...)."
        )
    settings = SegmentationSettings.model_validate(head.settings)
    return create_model(
        "segment",
        backbone=backbone,
        num_classes=head.num_classes,
        decoder=settings.decoder,
        deep_supervision=settings.deep_supervision,
    )


def _question(header: WeightHeader) -> tuple[Preprocessing | None, tuple[str, ...]]:
    """What a model is fed and which classes it tells apart."""
    return header.preprocessing, header.head.class_names if header.head else ()
