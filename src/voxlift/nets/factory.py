"""Backbones and models by name: the one place where networks meet weight files."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from pydantic import ValidationError
from torch import nn

from voxlift.core.architecture import Architecture, Norm, SliceTransform
from voxlift.core.backbone import Backbone
from voxlift.core.detection_settings import DetectorSettings
from voxlift.core.errors import ConfigError, WeightsError, wrong_fields
from voxlift.core.geometry import Geometry, named_geometry
from voxlift.core.segmentation_settings import Decoder
from voxlift.nets.buildable import check_buildable
from voxlift.nets.classifier import Classifier
from voxlift.nets.cspr_fcn import CsprFCN
from voxlift.nets.cspr_unet import CsprUNet
from voxlift.nets.detector import Detector
from voxlift.nets.encoder import Encoder
from voxlift.nets.fcn import FCN
from voxlift.nets.genesis import GenesisEncoder
from voxlift.nets.group_transform import SliceStart
from voxlift.nets.gvsl import GvslEncoder
from voxlift.nets.p3d import P3D, P3DS
from voxlift.nets.resenc import ResEncEncoder
from voxlift.nets.resnet import RESNETS, ResNet
from voxlift.nets.segresnet import SEGRESNETS, SegResNetEncoder
from voxlift.nets.slice_encoder import MP3D, MP3DS, SliceEncoder, SliceResNet
from voxlift.nets.swin_unetr import SWIN_UNETRS, SWINS, Swin, SwinUNETREncoder
from voxlift.nets.unet import UNet
from voxlift.weights.file import WeightFile
from voxlift.weights.load import load_weights
from voxlift.weights.match import ChannelRule
from voxlift.weights.parts import take_for_transform, take_part, take_volume_part
from voxlift.weights.source import Source, read_source

SCRATCH = "scratch"
DEFAULT_BACKBONE = "resnet18"
SAME_TENSORS = {"batch", "batch_always"}
"""Norms that a file does not decide: they have the same tensors and the same training."""


class BackboneClass(Protocol):
    """What makes a backbone from its description: a subclass of `Encoder`."""

    def __call__(
        self,
        architecture: Architecture,
        geometry: Geometry,
        *,
        zero_init_residual: bool = False,
        checkpointing: bool = False,
    ) -> Encoder:
        """Make a backbone with random weights."""

    @property
    def follows_data(self) -> bool:
        """Whether strides that suit the data are proposed for it."""

    @property
    def defaults(self) -> Mapping[str, object]:
        """Fields of the architecture whose default is another than `Architecture`'s."""

    def default_geometry(self, architecture: Architecture) -> Geometry:
        """Strides of a network that nobody gave any."""


BACKBONES: dict[str, BackboneClass] = {
    **dict.fromkeys(RESNETS, ResNet),
    **dict.fromkeys(P3DS, P3D),
    **dict.fromkeys(MP3DS, MP3D),
    "genesis": GenesisEncoder,
    "gvsl": GvslEncoder,
    "resenc": ResEncEncoder,
    **dict.fromkeys(SEGRESNETS, SegResNetEncoder),
    **dict.fromkeys(SWINS, Swin),
    **dict.fromkeys(SWIN_UNETRS, SwinUNETREncoder),
}
"""Every backbone by name. A new family is one file with its class and its names here."""

WITH_SLICES: dict[str, type[SliceEncoder]] = {
    **dict.fromkeys(RESNETS, SliceResNet),
    **dict.fromkeys(MP3DS, MP3D),
}
"""What a family is when it turns a number of slices into planes."""

DECODERS: dict[str, type[FCN] | type[CsprUNet] | type[CsprFCN]] = {
    "fcn": FCN,
    "cspr-unet": CsprUNet,
    "cspr-fcn": CsprFCN,
}
"""Every decoder of one level by name; `unet` has several."""

TASKS: dict[str, tuple[str, ...]] = {
    "classify": ("dropout",),
    "segment": ("decoder", "deep_supervision"),
    "detect": ("detector",),
}
"""Every task that has a model, with its options; a new one is one file with its class, a line here
and one in `create_model`."""


def list_backbones() -> list[str]:
    """Names that `create_backbone` knows."""
    return list(BACKBONES)


def create_backbone(
    name: str | None = None,
    *,
    geometry: str | Geometry | None = None,
    in_channels: int = 1,
    width: int | None = None,
    stem: int | None = None,
    norm: Norm | None = None,
    weights: Source | None = None,
    num_slices: int | None = None,
    slice_transform: SliceTransform | None = None,
    slice_start: SliceStart = "center",
    zero_init_residual: bool = False,
    checkpointing: bool = False,
    channels: ChannelRule = "sum",
) -> Encoder:
    """Make a 3D backbone, from scratch or from a start, in one line.

    What is None is taken from the weight file, else it is the default given below.

    Args:
        name: Name of the backbone, see `list_backbones()`; else `resnet18`.
        geometry: Strides, by name or explicit; else `pretrain`, or what the family has. An explicit
            one wins over the file's, and the report of the load names the difference.
        in_channels: Channels of the input.
        width: Channels of the first stage; else 64, or what the family has.
        stem: Edge of the stem kernel in voxels, 3, 5 or 7; else 7.
        norm: `batch` or `group`; else `batch`, or what the family has.
        weights: A start by any of its names: bundled (`tiny`, `tiny-axes`), a weight file of any
            format that is understood, `hf://org/name`, `i3d:FILE` ...; `voxlift inspect` lists
            them. None or `scratch` starts from random weights.
        num_slices: Slices of the input, which a group transform turns into planes, for detection
            in key slices; needed by `mp3d18` and its kin, possible for ResNets. A file for other
            slices is adapted. 0 takes a file's network without its group transform, for volumes.
        slice_transform: How planes are made of slices: `group` weighs those of each channel,
            `conv3d` mixes the channels too, `center` takes the middle slice, `pool` too, of maps
            whose slices were max-pooled between the stages (P3D, 9 slices); else `group`.
        slice_start: What a group transform computes before it has learnt, new or adapted: the
            `center` slice, or the `mean` of all.
        zero_init_residual: Start each block of a network from scratch as its shortcut.
        checkpointing: Recompute activations in the backward pass, to save memory.
        channels: How a file's several input channels become one; see `load_weights`.

    Raises:
        ConfigError: For an unknown name or geometry, or an option out of range.
        WeightsError: If the weights do not fit, or contradict an explicit option.
    """
    file = _read(weights, name)
    file = file and take_for_transform(file, slice_transform)
    if num_slices == 0:
        file, num_slices = file and take_volume_part(file), None
    backbone = make_backbone(
        name,
        geometry=geometry,
        in_channels=in_channels,
        width=width,
        stem=stem,
        norm=norm,
        file=file,
        num_slices=num_slices,
        slice_transform=slice_transform,
        slice_start=slice_start,
        zero_init_residual=zero_init_residual,
        checkpointing=checkpointing,
    )
    if file:
        load_weights(backbone, file, channels=channels)
    return backbone


def make_backbone(
    name: str | None,
    *,
    geometry: str | Geometry | None,
    in_channels: int,
    width: int | None,
    stem: int | None,
    norm: Norm | None,
    file: WeightFile | None,
    num_slices: int | None,
    slice_transform: SliceTransform | None,
    slice_start: SliceStart,
    zero_init_residual: bool,
    checkpointing: bool,
) -> Encoder:
    """Make the backbone that `create_backbone` makes for a weight file, without its weights.

    Raises:
        ConfigError: As `create_backbone`.
        WeightsError: If the file contradicts an explicit option.
    """
    stored = file.header.architecture if file else None
    name = name or (stored.name if stored else DEFAULT_BACKBONE)
    _check_name(name)
    wanted = {"name": name, "width": width, "stem_kernel": stem, "norm": norm}
    if file and stored:
        _check_agreement(file, stored, wanted)
    wanted |= {"num_slices": num_slices, "slice_transform": slice_transform}
    given = {key: value for key, value in wanted.items() if value is not None}
    base = stored.model_dump() if stored else BACKBONES[name].defaults
    architecture = make_architecture({**base, **given, "in_channels": in_channels})
    if geometry is None:
        geometry = _geometry_of(architecture, file)
    family = backbone_class(architecture)
    build: Callable[..., Encoder] = family
    if family is WITH_SLICES.get(name):
        build = partial(build, slice_start=slice_start)
    make = partial(
        build,
        architecture,
        named_geometry(geometry),
        zero_init_residual=zero_init_residual,
        checkpointing=checkpointing,
    )
    if file:
        check_buildable(make, file)
    return make()


def backbone_class(architecture: Architecture) -> BackboneClass:
    """Find the class that builds an architecture.

    Raises:
        ConfigError: For an unknown name, or slices that the family cannot turn into planes.
    """
    name = architecture.name
    _check_name(name)
    if architecture.num_slices is None:
        return BACKBONES[name]
    if name not in WITH_SLICES:
        raise ConfigError(
            f"{name} has no group transform; leave num_slices at None, or take one of "
            f"{', '.join(WITH_SLICES)}."
        )
    return WITH_SLICES[name]


def own_geometry(name: str | None, weights: Source | None) -> tuple[Geometry, str] | None:
    """Give the geometry that a backbone of volumes brings along; None if it follows the data.

    Args:
        name: Name of the backbone; None takes that of the weights.
        weights: Its start.

    Returns:
        The geometry, and why no other is proposed.

    Raises:
        ConfigError: For an unknown name.
        WeightsError: If the weights cannot be read.
    """
    file = _read(weights, name)
    file = file and take_volume_part(file)
    name = name or (file.header.architecture.name if file else DEFAULT_BACKBONE)
    _check_name(name)
    if file is not None and file.geometry_matters:
        return file.header.geometry, f"The geometry is that of the {file.format} weights."
    if BACKBONES[name].follows_data:
        return None
    if file is not None:
        return file.header.geometry, f"The geometry is that of {name} in the weight file."
    family = BACKBONES[name]
    own = family.default_geometry(make_architecture({**family.defaults, "name": name}))
    return own, f"The geometry is {name}'s own."


def _geometry_of(architecture: Architecture, file: WeightFile | None) -> Geometry:
    """The file's geometry, or the family's where there is no file or slices would be strided."""
    own = backbone_class(architecture).default_geometry(architecture)
    if file is None:
        return own
    strided = file.header.geometry.strides[-1][0] > 1
    return own if architecture.num_slices is not None and strided else file.header.geometry


def _read(weights: Source | None, name: str | None) -> WeightFile | None:
    """Read a start; of a larger network of the family only what the named backbone has."""
    if weights is None or weights == SCRATCH:
        return None
    return take_part(read_source(weights), name)


def _check_name(name: str) -> None:
    if name not in BACKBONES:
        raise ConfigError(f"Unknown backbone {name!r}; known are {', '.join(BACKBONES)}.")


def make_architecture(fields: Mapping[str, object]) -> Architecture:
    """Check the fields of an architecture.

    Raises:
        ConfigError: If no backbone can be built like this.
    """
    try:
        return Architecture.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(f"No backbone can be built like this: {wrong_fields(error)}.") from error


def _check_agreement(
    file: WeightFile, stored: Architecture, wanted: dict[str, str | int | None]
) -> None:
    """Refuse an explicit option that contradicts the weight file."""
    for field, value in wanted.items():
        found = getattr(stored, field)
        alike = {value, found} == SAME_TENSORS or value == f"m{found}"
        if value is not None and value != found and not alike:
            raise WeightsError(
                f"{file.path.name} holds a network with {field}={found!r}, but {value!r} was asked "
                f"for. Leave {field} out to take the file's, or choose other weights."
            )


def create_model(
    task: str,
    *,
    backbone: Backbone,
    num_classes: int,
    dropout: float = 0.0,
    decoder: Decoder = "unet",
    deep_supervision: bool = False,
    detector: DetectorSettings | None = None,
) -> nn.Module:
    """Put the head of a task on a backbone.

    Args:
        task: `classify`: volume to logits `(batch, num_classes)`. `segment`: volume to logits
            `(batch, num_classes, depth, height, width)`. `detect`: slices around a key slice to
            losses in training, else to boxes, scores and labels, as torchvision's detectors do.
        backbone: Any backbone; for `detect` one with `num_slices`.
        num_classes: Classes to tell apart; for `segment` with the background.
        dropout: Of `classify`: share of the features dropped in training, 0 to 1.
        decoder: Of `segment`: `unet` on all feature maps, or `fcn` on the stem and the
            stages 2 and 4; `cspr-unet` and `cspr-fcn` are the paper's.
        deep_supervision: Of `segment` with `unet`: in training, return the logits of the coarser
            levels as well.
        detector: Of `detect`: the kind of its head, its size and its thresholds.

    Raises:
        ConfigError: For an unknown task or decoder, too few classes, or an option of another task.
    """
    if task not in TASKS:
        raise ConfigError(f"Unknown task {task!r}; known are {', '.join(TASKS)}.")
    given = {
        "dropout": dropout != 0,
        "decoder": decoder != "unet",
        "deep_supervision": deep_supervision,
        "detector": detector is not None,
    }
    for option, is_given in given.items():
        if is_given and option not in TASKS[task]:
            owner = next(name for name, options in TASKS.items() if option in options)
            raise ConfigError(f"{option} is an option of the task {owner!r}; leave it out.")
    if task == "classify":
        return Classifier(backbone, num_classes=num_classes, dropout=dropout)
    if task == "detect":
        return Detector(backbone, num_classes=num_classes, settings=detector)
    return _segmenter(
        backbone, num_classes=num_classes, decoder=decoder, deep_supervision=deep_supervision
    )


def _segmenter(
    backbone: Backbone, *, num_classes: int, decoder: Decoder, deep_supervision: bool
) -> nn.Module:
    if len(backbone.strides[0]) == 2:
        raise ConfigError(
            f"{backbone.architecture.name} with num_slices gives planes, from which volumes cannot "
            "be segmented. Leave num_slices at None."
        )
    if decoder == "unet":
        return UNet(backbone, num_classes=num_classes, deep_supervision=deep_supervision)
    if decoder not in DECODERS:
        raise ConfigError(f"Unknown decoder {decoder!r}; known are unet, {', '.join(DECODERS)}.")
    if deep_supervision:
        raise ConfigError(
            f"deep_supervision needs the decoder 'unet'; {decoder!r} has one level of logits."
        )
    return DECODERS[decoder](backbone, num_classes=num_classes)
