"""The configs of all runs: every option, with its unit and default.

A config is frozen and checked. It is what a recipe returns, what the command line changes, and
what `config.yaml` in the run folder holds, so that any run can be run again.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from voxlift.data.image_augmentation import ImageAugmentation
from voxlift.tasks.optimization import OptimizationConfig

Precision = Literal["auto", "fp32", "bf16", "fp16"]


class NetworkConfig(BaseModel):
    """Which backbone, and where its weights come from.

    Args:
        backbone: Name of the backbone: resnet10, resnet18, resnet34, resnet50 or resnet101.
        weights: Start: `scratch`, a bundled one (`tiny`, `tiny-axes`), or a weight file.
        width: Channels of the first stage; None takes the weight file's, else 64.
        stem: Edge of the stem kernel in voxels (3, 5, 7); None takes the weight file's, else 7.
        norm: `batch` or `group`; None takes the weight file's, else `batch`.
        geometry: Strides by name: pretrain, thumbnail, volume, unet, small or medicalnet.
        zero_init_residual: Start each block of a new network as its shortcut.
        checkpointing: Recompute activations in the backward pass: less memory, a third slower.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str = "resnet18"
    weights: str = "scratch"
    width: int | None = Field(default=None, ge=1)
    stem: Literal[3, 5, 7] | None = None
    norm: Literal["batch", "group"] | None = None
    geometry: str = "pretrain"
    zero_init_residual: bool = False
    checkpointing: bool = False


class MachineConfig(BaseModel):
    """Where and how a run is computed; a resumed run may change these.

    Args:
        device: `auto` (CUDA, else Apple MPS, else CPU), `cuda`, `mps` or `cpu`.
        devices: Number of devices; more than one trains in parallel (DDP).
        precision: `auto` takes bf16 where the hardware computes in it, else fp32.
        workers: Processes that load data beside the main one.
        compile: Compile the network with torch.compile; pays for itself in long runs on GPUs.
        cache_gb: Memory in GB that decoded data may take up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    devices: int = Field(default=1, ge=1)
    precision: Precision = "auto"
    workers: int = Field(default=0, ge=0)
    compile: bool = False
    cache_gb: float = Field(default=2.0, ge=0)


class RunConfig(BaseModel):
    """What all runs have in common.

    Args:
        recipe: Name of the recipe that the run started from.
        data: The data; what it may be is told by each command.
        out: Run folder.
        seed: Seed of everything random in the run.
        epochs: Passes over the training data.
        steps: Optimizer steps of the run; None means as many as `epochs` take.
        batch_size: Samples in a batch, for each device.
        accumulate: Batches whose gradients are added up before a step.
        skip_bad: List unreadable files and go on without them.
        checkpoint_steps: Optimizer steps between checkpoints; one is kept, and the best.
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
    network: NetworkConfig = NetworkConfig()
    machine: MachineConfig = MachineConfig()
    optimization: OptimizationConfig = OptimizationConfig()


class PretrainConfig(RunConfig):
    """Pre-train a 3D backbone on lifted photographs.

    Args:
        data: A folder with one folder of JPEG, PNG or WebP images for each class, a torchvision
            data set by name (cifar10, cifar100, ...), or `photographs` (ten embedded ones).
        download: Download a torchvision data set that is not there yet.
        val_fraction: Share of the images held out where the data has no split of its own.
        image_size: Edge in pixels that the network is fed.
        progressive_sizes: Smaller edges for the first epochs: (share of the epochs, pixels) each.
        slice_shuffle: Put the three slices of each training image in random order.
        axis_shuffle: Lay each training batch out in one of the six axis orders.
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
    augmentation: ImageAugmentation = ImageAugmentation()

    def size_at(self, epoch: int) -> int:
        """Edge in pixels at which an epoch, counted from 0, trains."""
        for share, size in self.progressive_sizes:
            if epoch < share * self.epochs:
                return size
        return self.image_size
