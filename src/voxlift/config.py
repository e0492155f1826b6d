"""The configs of all runs: every option, with its unit and default.

A config is frozen and checked. It is what a recipe returns, what the command line changes, and
what `config.yaml` in the run folder holds, so that any run can be run again.
"""

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from voxlift.core.architecture import SliceTransform
from voxlift.core.detection_settings import DetectorSettings, Matching, Noisy
from voxlift.core.segmentation_settings import Decoder
from voxlift.core.types import PublishedSplit
from voxlift.data.box_augmentation import BoxAugmentation
from voxlift.data.classification_batches import VolumeAugmentation
from voxlift.data.image_augmentation import ImageAugmentation
from voxlift.data.patch_augmentation import PatchAugmentation
from voxlift.input_config import KeySliceConfig as KeySliceConfig
from voxlift.input_config import ScanConfig as ScanConfig
from voxlift.input_config import VolumeConfig as VolumeConfig
from voxlift.nets.group_transform import SliceStart
from voxlift.nets.norm import NormMode
from voxlift.tasks.optimization import OptimizationConfig
from voxlift.tasks.segmentation_loss import LossConfig

Precision = Literal["auto", "fp32", "bf16", "fp16"]


class NetworkConfig(BaseModel):
    """Which backbone, and where its weights come from.

    Args:
        backbone: Name of the backbone, such as resnet18 or resnet50; None takes the weight file's,
            else resnet18.
        weights: Start: `scratch`, a bundled one (`tiny`, `tiny-axes`), a weight file of any format
            that is understood, `hf://org/name`, `i3d:FILE` ...; `voxlift inspect` lists them.
        width: Channels of the first stage; None takes the weight file's, else 64.
        stem: Edge of the stem kernel in voxels (3, 5, 7); None takes the weight file's, else 7.
        norm: `batch` or `group`; None takes the weight file's, else `batch`.
        geometry: Strides by name: pretrain, thumbnail, volume, unet, small, nodule or medicalnet;
            `auto` proposes what fits the size and spacing of the data, and says why.
        zero_init_residual: Start each block of a new network as its shortcut.
        checkpointing: Recompute activations in the backward pass: less memory, a third slower.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str | None = None
    weights: str = "scratch"
    width: int | None = Field(default=None, ge=1)
    stem: Literal[3, 5, 7] | None = None
    norm: Literal["batch", "group"] | None = None
    geometry: str = "auto"
    zero_init_residual: bool = False
    checkpointing: bool = False


class MachineConfig(BaseModel):
    """Where and how a run is computed; a resumed run may change these.

    Args:
        device: `auto` (CUDA, else Apple MPS, else CPU), `cuda`, `mps` or `cpu`.
        precision: `auto` takes bf16 where the hardware computes in it, else fp32.
        workers: Processes that load data beside the main one.
        compile: Compile the network with torch.compile; pays for itself in long runs on GPUs.
        cache_gb: Memory in GB that decoded data may take up; detection keeps none.
        progress: Show a progress bar where the output is a terminal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    precision: Precision = "auto"
    workers: int = Field(default=0, ge=0)
    compile: bool = False
    cache_gb: float = Field(default=2.0, ge=0)
    progress: bool = True


class RunConfig(BaseModel):
    """What all runs have in common.

    Args:
        recipe: Name of the recipe that the run started from.
        data: The data; what it may be is told by each command.
        out: Run folder.
        seed: Seed of everything random in the run.
        epochs: Passes over the training data.
        steps: Optimizer steps of the run; None means as many as `epochs` take.
        batch_size: Samples in a batch.
        accumulate: Batches whose gradients are added up before a step.
        skip_bad: List unreadable files and go on without them.
        checkpoint_steps: Optimizer steps between checkpoints; the last one and the best are kept.
        val_steps: Optimizer steps between validations; None validates after each epoch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str = ""
    data: str
    out: Path = Path("runs/run")
    seed: int = 0
    epochs: int = Field(default=10, ge=1)
    steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=32, ge=1)
    accumulate: int = Field(default=1, ge=1)
    skip_bad: bool = False
    checkpoint_steps: int = Field(default=500, ge=1)
    val_steps: int | None = Field(default=None, ge=1)
    network: NetworkConfig = NetworkConfig()
    machine: MachineConfig = MachineConfig()
    optimization: OptimizationConfig = OptimizationConfig()


class PretrainConfig(RunConfig):
    """Pre-train a 3D backbone on lifted photographs.

    Args:
        task: What is learnt.
        data: A folder with one folder of JPEG, PNG or WebP images for each class, or with `train/`
            and `val/` (in ImageNet's form too), a torchvision data set by name (cifar10, cifar100,
            ...), or `photographs` (ten embedded ones).
        download: Download a torchvision data set that is not there yet.
        val_fraction: Share of the images held out where the data has no split of its own.
        image_size: Edge in pixels that the network is fed.
        progressive_sizes: Smaller edges for the first epochs: (share of the epochs, pixels) each.
        slice_shuffle: Put the three slices of each training image in random order.
        axis_shuffle: Lay each training batch out in one of the six axis orders.
        val_center_fraction: Share of the shorter side that validation keeps, about the centre;
            0.875 is a crop of 224 pixels out of 256.
        augmentation: Random crops and flips.
    """

    task: Literal["pretrain"] = "pretrain"
    data: str = "photographs"
    download: bool = False
    val_fraction: float = Field(default=0.1, gt=0, lt=1)
    image_size: int = Field(default=224, ge=8)
    progressive_sizes: tuple[tuple[float, int], ...] = ()
    slice_shuffle: bool = True
    axis_shuffle: bool = False
    val_center_fraction: float = Field(default=1.0, gt=0, le=1)
    augmentation: ImageAugmentation = ImageAugmentation()

    def size_at(self, epoch: int) -> int:
        """Edge in pixels at which an epoch, counted from 0, trains."""
        for share, size in self.progressive_sizes:
            if epoch < share * self.epochs:
                return size
        return self.image_size


class FinetuneConfig(RunConfig):
    """Fine-tune a backbone to classify volumes.

    Args:
        task: What is learnt.
        data: A CSV with the columns path, label and, if wanted, group (patient) and split; a
            MedMNIST-3D .npz; a folder in the LIDC layout; or a folder with one folder of volumes
            for each class.
        published_split: Of the LIDC layout, whose published split divides patients: `keep` it, to
            compare with published figures, or `ignore` it and split by patient; None refuses it.
        fractions: Shares of training, validation and test cases where the data has no splits.
        label_fraction: Share of the training labels that may be used, 0 to 1.
        folds: Train so many networks by cross-validation and average them; 0 trains one.
        class_weights: Weigh rare classes higher in the loss.
        balanced_sampling: Draw all classes equally often instead.
        norm_mode: Batch norm in fine-tuning: `train`, `frozen` (running statistics of the start;
            for batches of 1 to 4) or `group` (converted to group norm).
        head_warmup: Share of the steps, 0 to 1, in which only the head learns.
        layer_decay: Factor on the learning rate from each stage to the one before it, 0 to 1.
        dropout: Share of the pooled features dropped in training, 0 to 1.
        patience: Validations without a better AUROC after which the run stops; 0 never stops.
        volume: Size, spacing and intensities.
        augmentation: Random shifts, rotations, flips and intensities.
    """

    task: Literal["classify"] = "classify"
    out: Path = Path("runs/classify")
    published_split: PublishedSplit | None = None
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    label_fraction: float = Field(default=1.0, gt=0, le=1)
    folds: int = Field(default=0, ge=0)
    class_weights: bool = False
    balanced_sampling: bool = False
    norm_mode: NormMode = "train"
    head_warmup: float = Field(default=0.0, ge=0, lt=1)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    patience: int = Field(default=0, ge=0)
    volume: VolumeConfig = VolumeConfig()
    augmentation: VolumeAugmentation = VolumeAugmentation()


class SegmentConfig(RunConfig):
    """Fine-tune a backbone to segment volumes.

    Args:
        task: What is learnt.
        data: A folder in the layout of the Medical Segmentation Decathlon, nnU-Net, LiTS or LIDC,
            one with a folder of images and a folder of masks, or a CSV with the columns image and
            label.
        published_split: Of the LIDC layout, whose published split divides patients: `keep` it, to
            compare with published figures, or `ignore` it and split by patient; None refuses it.
        fractions: Shares of training, validation and test cases where the data has no splits.
        val_cases: Names of the validation cases, or patterns such as `*_03?`, instead of a share.
        test_cases: Names or patterns of the test cases, likewise.
        label_fraction: Share of the training cases that may be used, 0 to 1.
        ignore_value: Number in the masks of voxels that nobody labelled.
        class_names: Names of the classes in the order of their numbers, without the background;
            none takes those of the data.
        regions: Overlapping regions to find instead of the classes, the larger ones first, each as
            NAME=VALUE+VALUE+..., such as whole=1+2+3 core=2+3.
        decoder: `unet` climbs over all feature maps; `fcn` takes the stem and the stages 2 and 4,
            for small structures; `cspr-unet` and `cspr-fcn` are the paper's, the latter with more
            channels.
        deep_supervision: Let the coarser levels of the U-Net answer too, in training.
        norm_mode: Batch norm in fine-tuning: `train`, `frozen` (running statistics of the start)
            or `group` (converted to group norm, for patches that differ much in batches of 1 to 4).
        layer_decay: Factor on the learning rate from each stage to the one before it, 0 to 1.
        patience: Validations without a better Dice after which the run stops; 0 never stops.
        keep: Which weights become the model: those of the `best` validation, or the `last`.
        foreground_share: Share of the patches, 0 to 1, that are centred on a structure.
        patches_per_case: Patches taken from each case in an epoch.
        val_overlap: Share of a window's edge, 0 to 1, shared with the next one in validation.
        loss_function: What is minimised.
        scan: Spacing, intensities and patch size.
        augmentation: Random flips, turns, sizes and intensities.
    """

    task: Literal["segment"] = "segment"
    out: Path = Path("runs/segment")
    published_split: PublishedSplit | None = None
    batch_size: int = Field(default=2, ge=1)
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    val_cases: tuple[str, ...] = ()
    test_cases: tuple[str, ...] = ()
    label_fraction: float = Field(default=1.0, gt=0, le=1)
    ignore_value: int | None = None
    class_names: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    decoder: Decoder = "unet"
    deep_supervision: bool = False
    norm_mode: NormMode = "train"
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    patience: int = Field(default=0, ge=0)
    keep: Literal["best", "last"] = "best"
    foreground_share: float = Field(default=0.5, ge=0, le=1)
    patches_per_case: int = Field(default=1, ge=1)
    val_overlap: float = Field(default=0.25, ge=0, lt=1)
    loss_function: LossConfig = LossConfig()
    scan: ScanConfig = ScanConfig()
    augmentation: PatchAugmentation = PatchAugmentation()

    @field_validator("regions")
    @classmethod
    def _readable(cls, regions: tuple[str, ...]) -> tuple[str, ...]:
        for text in regions:
            if not re.fullmatch(r"[^=]+=\d+(\+\d+)*", text):
                raise ValueError(
                    f"a region is NAME=VALUE+VALUE+..., such as core=2+3, not {text!r}."
                )
        return regions

    @property
    def region_members(self) -> dict[str, tuple[int, ...]] | None:
        """The regions by name, with the values of their classes; None for exclusive classes."""
        named = {
            name: values.split("+") for name, _, values in (r.partition("=") for r in self.regions)
        }
        return {name: tuple(map(int, values)) for name, values in named.items()} or None


class DetectConfig(RunConfig):
    """Train a detector: on boxes in photographs, or on lesions in key slices of CT.

    Args:
        task: What is learnt.
        data: Annotations in COCO's form (.json, or a folder with them), a folder of DeepLesion, or
            its DL_info.csv.
        images: Folder of the images, where it is not beside the annotations.
        fractions: Shares of training, validation and test images where the data has no splits.
        label_fraction: Share of the training images that may be used, 0 to 1.
        class_agnostic: Take all classes as one.
        noisy: Boxes that DeepLesion marks as possibly wrong: `drop` them, `ignore` what is found
            there, or `keep` them.
        empty_images: Learn from images without boxes too.
        norm_mode: Batch norm in training: `train`, `frozen` (running statistics of the start; for
            batches of 1 to 4) or `group` (converted to group norm).
        slice_transform: How planes are made of slices: `group`, `conv3d`, `center` or `pool`; None
            takes the weight file's, else `group`.
        slice_start: What a group transform computes before it has learnt, also where it is built
            anew for another number of slices: the `center` slice, or the `mean`.
        layer_decay: Factor on the learning rate from each stage to the one before it, 0 to 1.
        patience: Validations without a better result after which the run stops; 0 never stops.
        keep: Which weights become the model: those of the `best` validation, or the `last`.
        matching: Overlap that makes a hit in the report: over the union of both boxes (`iou`), or
            over the found box (`iobb`).
        slices: Slices, size and window.
        detector: What stands on the backbone.
        augmentation: Random sizes, flips and orders of slices.
    """

    task: Literal["detect"] = "detect"
    out: Path = Path("runs/detect")
    batch_size: int = Field(default=2, ge=1)
    images: Path | None = None
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    label_fraction: float = Field(default=1.0, gt=0, le=1)
    class_agnostic: bool = False
    noisy: Noisy = "drop"
    empty_images: bool = False
    norm_mode: NormMode = "train"
    slice_transform: SliceTransform | None = None
    slice_start: SliceStart = "center"
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    patience: int = Field(default=0, ge=0)
    keep: Literal["best", "last"] = "best"
    matching: Matching = "iou"
    slices: KeySliceConfig = KeySliceConfig()
    detector: DetectorSettings = DetectorSettings()
    augmentation: BoxAugmentation = BoxAugmentation()
