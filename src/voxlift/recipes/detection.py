"""Recipes for detectors: on boxes in photographs, and on lesions in key slices of CT."""

from pathlib import Path

from voxlift.config import DetectConfig, KeySliceConfig, MachineConfig, NetworkConfig
from voxlift.core.detection_settings import DetectorSettings
from voxlift.data.box_augmentation import BoxAugmentation
from voxlift.tasks.optimization import OptimizationConfig

PAPER_SIZES = (448, 512, 576)
PAPER_MEAN_STD = (123.675, 58.395)
PAPER_DETECTOR = DetectorSettings(train_proposals=1000, box_beta=1.0)
SMALL_DETECTOR = DetectorSettings(fpn_channels=64, head_width=256, box_samples=128)
"""Narrower than the paper's, for a CPU."""


def coco_p3d63() -> DetectConfig:
    """Pre-train MP3D-63 on COCO's boxes by the paper's recipe: images lifted to three slices.

    Differs from the paper: the schedule, the sizes and the rest of its lesion detector, for those
    of its pre-training are not published.

    Source: arXiv 2012.08770, section 2.3.
    Cost: days on a GPU. Not yet run to its end by the authors.
    Command: `voxlift pretrain --recipe coco-p3d63 --data FOLDER --workers 8`.
    """
    return DetectConfig(
        recipe="coco-p3d63",
        data="coco",
        out=Path("runs/coco-p3d63"),
        epochs=24,
        batch_size=2,
        accumulate=8,
        keep="last",
        network=NetworkConfig(backbone="mp3d63"),
        machine=MachineConfig(workers=8),
        slices=KeySliceConfig(image_size=512, max_image_size=1333, mean_std=PAPER_MEAN_STD),
        detector=PAPER_DETECTOR,
        augmentation=BoxAugmentation.for_photographs(image_sizes=PAPER_SIZES),
        optimization=_paper_optimization(),
    )


def coco_small() -> DetectConfig:
    """Pre-train a detector of width 16 on boxes in photographs, all classes as one, on a laptop.

    It starts from the bundled `tiny`, and is a start for `detect-few`.

    Expected: on COCO128, the first 128 images of COCO, an AP50 of at least 0.5 on its own training
    images. Cost: within an hour on two CPU cores.
    Command: `voxlift pretrain --recipe coco-small --data coco128`.
    """
    return DetectConfig(
        recipe="coco-small",
        data="coco128",
        out=Path("runs/coco-small"),
        epochs=60,
        batch_size=4,
        val_steps=320,
        fractions=(0.9, 0.1, 0.0),
        class_agnostic=True,
        keep="last",
        network=NetworkConfig(weights="tiny"),
        slices=KeySliceConfig(image_size=256, max_image_size=384),
        detector=SMALL_DETECTOR,
        augmentation=BoxAugmentation.for_photographs(),
        optimization=_small_optimization(warmup=0.05),
    )


def deeplesion_mp3d63() -> DetectConfig:
    """Find lesions in DeepLesion by the paper's recipe: nine slices through MP3D-63.

    9 slices 2.5 mm apart, -1024 to 1050 HU, shorter edges of 448, 512 or 576 pixels, flips along x
    and z, SGD of rate 0.02 with a warm-up of 500 steps, divided by ten after 16 and 22 of 24
    epochs, gradients clipped at 35, 16 images a step.

    Source: arXiv 2012.08770, sections 2 and 3, and its public configuration; what differs is in the
    reference of the recipes.
    Cost: days on a GPU. Not yet run to its end by the authors, for the images cannot be had here.
    Command: `voxlift finetune --recipe deeplesion-mp3d63 --data DeepLesion --weights FILE`.
    """
    return DetectConfig(
        recipe="deeplesion-mp3d63",
        data="DeepLesion",
        out=Path("runs/deeplesion-mp3d63"),
        epochs=24,
        batch_size=2,
        accumulate=8,
        class_agnostic=True,
        keep="last",
        network=NetworkConfig(backbone="mp3d63"),
        machine=MachineConfig(workers=8),
        slices=KeySliceConfig(
            num_slices=9, slice_interval_mm=2.5, image_size=512, mean_std=PAPER_MEAN_STD
        ),
        # Differs from the paper: anchors across the border are used in training too, features are
        # sampled at four points of a cell instead of as many as it has pixels, and boxes with a
        # score below 0.05 are left out.
        detector=PAPER_DETECTOR,
        augmentation=BoxAugmentation(image_sizes=PAPER_SIZES, flip_x=0.5, flip_slices=0.5),
        optimization=_paper_optimization(),
    )


def detect_few() -> DetectConfig:
    """Find lesions with few labelled key slices, on a laptop.

    Nine slices through a ResNet3D of width 16 with group transforms. It starts from the bundled
    `tiny`; a detector pre-trained by `coco-small` gives its pyramid and its head besides.

    Cost: seven minutes on one CPU core for 900 steps at `--image-size 128`
    (`benchmarks/results/detection.json`); more at the 256 pixels given here.
    Command: `voxlift finetune --recipe detect-few --data FOLDER`.
    """
    return DetectConfig(
        recipe="detect-few",
        data="DeepLesion",
        out=Path("runs/detect-few"),
        epochs=10,
        batch_size=4,
        class_agnostic=True,
        network=NetworkConfig(weights="tiny"),
        slices=KeySliceConfig(image_size=256),
        detector=SMALL_DETECTOR,
        augmentation=BoxAugmentation.for_slices(),
        optimization=_small_optimization(warmup=0.1),
    )


def _small_optimization(*, warmup: float) -> OptimizationConfig:
    return OptimizationConfig(
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.05,
        decay_norms=False,
        warmup=warmup,
        gradient_clip=10.0,
    )


def _paper_optimization() -> OptimizationConfig:
    return OptimizationConfig(
        lr=0.02,
        weight_decay=1e-4,
        schedule="milestones",
        milestones=(16 / 24, 22 / 24),
        warmup_steps=500,
        warmup_from=1 / 3,
        gradient_clip=35.0,
    )
