"""Recipes for fine-tuning on volumes with masks."""

from pathlib import Path
from typing import Literal

from voxlift.config import NetworkConfig, ScanConfig, SegmentConfig
from voxlift.data.patch_augmentation import PatchAugmentation
from voxlift.tasks.optimization import OptimizationConfig
from voxlift.tasks.segmentation_loss import LossConfig

PHOTOGRAPHS_OF_IMAGENET = (123.675, 58.395)
"""Mean and deviation of their red channel, 0 to 255, with which the authors normalise CT too."""


def segment_few() -> SegmentConfig:
    """Fine-tune a bundled start to segment with few labels, on a laptop.

    This is what `--task segment` takes where no recipe is named.

    Cost: some minutes on two CPU cores for structures of some centimetres.
    Command: `voxlift finetune --recipe segment-few --data FOLDER`.
    """
    return SegmentConfig(
        recipe="segment-few",
        data="FOLDER",
        out=Path("runs/segment-few"),
        steps=600,
        val_steps=100,
        batch_size=2,
        network=NetworkConfig(weights="tiny"),
        scan=ScanConfig(max_patch_voxels=64**3),
        optimization=OptimizationConfig(
            optimizer="adamw", lr=5e-3, weight_decay=0.01, decay_norms=False, warmup=0.1
        ),
    )


def hippocampus() -> SegmentConfig:
    """Segment the anterior and posterior hippocampus in MR (Decathlon task 4), on two CPU cores.

    All usable volumes but a fifth, which is only judged: the last weights are taken, not the best.
    As found, the set has files without their partner; `--skip-bad` goes on without them.

    Expected: mean Dice of at least 0.85. Cost: at most 45 minutes on two CPU cores.
    Command: `voxlift finetune --recipe hippocampus --data FOLDER --skip-bad`.
    """
    return SegmentConfig.model_validate(
        {
            **dict(segment_few()),
            "recipe": "hippocampus",
            "out": Path("runs/hippocampus"),
            "class_names": ("anterior", "posterior"),
            "fractions": (0.8, 0.2, 0.0),
            "keep": "last",
            "steps": 1600,
            "val_steps": 400,
        }
    )


def msd() -> SegmentConfig:
    """Segment any task of the Medical Segmentation Decathlon, as its `dataset.json` describes it.

    Cost: hours on a GPU for the larger tasks; the authors have run task 4 alone (`hippocampus`).
    Command: `voxlift finetune --recipe msd --data Task09_Spleen --weights FILE`.
    """
    return SegmentConfig(
        recipe="msd",
        data="FOLDER",
        out=Path("runs/msd"),
        epochs=300,
        batch_size=2,
        patches_per_case=4,
        fractions=(0.8, 0.2, 0.0),
        deep_supervision=True,
        network=NetworkConfig(weights="tiny"),
        scan=ScanConfig(max_patch_voxels=128**3),
        optimization=OptimizationConfig(
            optimizer="sgd",
            lr=0.01,
            momentum=0.99,
            nesterov=True,
            weight_decay=3e-5,
            schedule="poly",
            gradient_clip=12.0,
        ),
    )


def bcv() -> SegmentConfig:
    """Segment 13 abdominal organs in CT (BCV) by the paper's recipe.

    The paper's U-Net on five feature maps, patches of 32x256x256, Dice + 0.3 cross-entropy, SGD of
    rate 0.02 with polynomial decay, 39,000 steps of batch 8: two patches at once, four times before
    each step (`--batch-size 8 --accumulate 1` where memory allows). The split is that of UNETR: of
    the 30 cases 1 to 10 and 21 to 40, the last six are test cases; nothing is chosen by them.

    As in the paper, patches are flipped along the width, although left and right are classes: the
    network must infer the side from context. `--flip-axes depth` leaves this out.

    Source: arXiv 2201.01426, section on BCV, and its public configuration; what differs is in the
    reference of the recipes. The split is that of UNETR (arXiv 2103.10504).
    Cost: for the paper's network (width 64) a GPU, not measured: the data cannot be passed on, so
    the authors of Voxlift have not run it.
    Command: `voxlift finetune --recipe bcv --data FOLDER --weights FILE`.
    """
    return SegmentConfig(
        recipe="bcv",
        data="FOLDER",
        out=Path("runs/bcv"),
        steps=39_000,
        batch_size=2,
        # Differs from the paper: its batch norm sees 8 patches, on 8 GPUs; here 2, on one.
        accumulate=4,
        patches_per_case=2,
        fractions=(1.0, 0.0, 0.0),
        test_cases=("*35", "*36", "*37", "*38", "*39", "*40"),
        decoder="cspr-unet",
        keep="last",
        class_names=(
            "spleen",
            "right kidney",
            "left kidney",
            "gallbladder",
            "esophagus",
            "liver",
            "stomach",
            "aorta",
            "inferior vena cava",
            "portal and splenic veins",
            "pancreas",
            "right adrenal gland",
            "left adrenal gland",
        ),
        network=NetworkConfig(geometry="unet"),
        # Differs from the paper: its arrays, of mean 83 and deviation 137, are prepared by code
        # that is not public. Here Hounsfield units are clipped and normalised as measured, in each
        # scan's own resolution.
        scan=ScanConfig(
            patch_voxels=(32, 256, 256),
            window_steps=(12, 128, 128),
            spacing_mm=(0.0, 0.0, 0.0),
            window=(-160.0, 240.0),
            unit="HU",
        ),
        augmentation=_paper_augmentation("depth", "width"),
        loss_function=LossConfig(
            dice_weight=1.0,
            ce_weight=0.3,
            dice_background=True,
            dice_per_case=True,
            dice_squared=True,
        ),
        optimization=OptimizationConfig(
            optimizer="sgd", lr=0.02, weight_decay=5e-4, schedule="poly"
        ),
    )


def lits_liver() -> SegmentConfig:
    """Segment the liver in CT (LiTS) by the paper's recipe.

    Slices 1 mm apart in their own resolution, window of width 450 and centre 25 HU, cross-entropy +
    0.5 Dice, Adam of rate 1e-4 with polynomial decay, 3,281 steps of batch 16 (500 passes over the
    105 training cases). The masks hold 1 for liver and 2 for tumour; both are taken as liver.
    Validation and test cases are those that the authors published, 13 each, by their numbers in
    LiTS; `--val-cases` and `--test-cases` name others. Predict and evaluate with
    `--largest-component`.

    Source: arXiv 2201.01426, section on LiTS, and its public configuration and lists of cases; what
    differs is in the reference of the recipes.
    Cost: for the paper's network (width 64) a GPU, not measured: not run by the authors of Voxlift.
    Command: `voxlift finetune --recipe lits-liver --data FOLDER --weights FILE`.
    """
    return SegmentConfig(
        recipe="lits-liver",
        data="FOLDER",
        out=Path("runs/lits-liver"),
        steps=3281,
        batch_size=2,
        # Differs from the paper: its batch norm sees 16 patches, on 8 GPUs; here 2, on one.
        accumulate=8,
        val_cases=_lits_cases(34, 0, 75, 58, 87, 85, 73, 29, 110, 17, 113, 72, 103),
        test_cases=_lits_cases(52, 26, 42, 88, 77, 20, 65, 112, 86, 2, 99, 127, 19),
        decoder="cspr-unet",
        keep="last",
        class_names=("liver", "tumour"),
        # Differs from the paper: a yes or no for each voxel instead of two classes.
        regions=("liver=1+2",),
        network=NetworkConfig(geometry="unet"),
        scan=ScanConfig(
            patch_voxels=(32, 256, 256),
            window_steps=(12, 128, 128),
            spacing_mm=(1.0, 0.0, 0.0),
            window_width_centre=(450.0, 25.0),
            mean_std=PHOTOGRAPHS_OF_IMAGENET,
            unit="HU",
        ),
        augmentation=_paper_augmentation("depth", "width"),
        # Differs from the paper: its Dice divides by the intersection more than it should, so that
        # a perfect mask scores 2/3.
        loss_function=LossConfig(dice_weight=0.5, ce_weight=1.0, dice_per_case=True),
        optimization=OptimizationConfig(
            optimizer="adam", lr=1e-4, weight_decay=1e-4, schedule="poly"
        ),
    )


def lidc_segment() -> SegmentConfig:
    """Segment lung nodules in CT (LIDC-IDRI) on a laptop: a small relative of the paper's recipe.

    No stride in the stem, no pooling, an FCN head over the stem and the stages 2 and 4,
    cross-entropy + 0.3 Dice, Adam of rate 1e-3. `lidc-segment-full` is the paper's own.

    Source: arXiv 2201.01426, section on LIDC segmentation; what differs is in the reference of the
    recipes.
    Cost: about 15 minutes on one CPU core.
    Command: `voxlift finetune --recipe lidc-segment --data FOLDER`.
    """
    # Differs from the paper: a bundled start, crops of 16x32x32, 800 steps of batch 4, a cosine
    # behind a warm-up, changes of size, angle and intensity, and the head `fcn`, all to run on two
    # CPU cores and to train on few cases. The published measurement is of this recipe.
    return SegmentConfig(
        recipe="lidc-segment",
        data="FOLDER",
        out=Path("runs/lidc-segment"),
        steps=800,
        val_steps=400,
        batch_size=4,
        decoder="fcn",
        keep="last",
        class_names=("nodule",),
        network=NetworkConfig(weights="tiny", geometry="nodule"),
        scan=ScanConfig(
            spacing_mm=(1.0, 1.0, 1.0),
            patch_voxels=(16, 32, 32),
            window=(-1000.0, 400.0),
            unit="HU",
        ),
        loss_function=LossConfig(dice_weight=0.3, ce_weight=1.0),
        optimization=OptimizationConfig(optimizer="adam", lr=1e-3, weight_decay=1e-4, warmup=0.05),
    )


def lidc_segment_full() -> SegmentConfig:
    """Segment lung nodules in CT (LIDC-IDRI) by the paper's recipe.

    Crops of 48^3 voxels of 1 mm, no stride in the stem, no pooling, the paper's head over the stem
    and the stages 2 and 4, cross-entropy + 0.3 Dice, Adam of rate 1e-3 with polynomial decay,
    13,387 steps of batch 32 (200 passes over 2,142 nodules). The data are the 8-bit cubes of the
    LIDC layout; for CT in Hounsfield units add `--window -1000 400 --unit HU`.

    Source: arXiv 2201.01426, section on LIDC segmentation, and its public configuration; what
    differs is in the reference of the recipes.
    Cost: for the paper's network (width 64) a GPU, not measured: not run by the authors of Voxlift.
    Command: `voxlift finetune --recipe lidc-segment-full --data FOLDER --weights FILE`.
    """
    return SegmentConfig(
        recipe="lidc-segment-full",
        data="FOLDER",
        out=Path("runs/lidc-segment-full"),
        steps=13_387,
        batch_size=4,
        # Differs from the paper: its batch norm sees 32 crops, on 8 GPUs; here 4, on one.
        accumulate=8,
        decoder="cspr-fcn",
        keep="last",
        class_names=("nodule",),
        # Differs from the paper: every crop is about a nodule, as all of its are, but by up to half
        # its size off the centre, not by 5 voxels.
        foreground_share=1.0,
        network=NetworkConfig(geometry="nodule"),
        scan=ScanConfig(
            spacing_mm=(1.0, 1.0, 1.0),
            patch_voxels=(48, 48, 48),
            window=(0.0, 255.0),
            mean_std=PHOTOGRAPHS_OF_IMAGENET,
            unit="0-255",
        ),
        # Differs from the paper: its code turns the mask by quarter turns and not the image, and
        # flips the width twice instead of width and height; both are defects.
        augmentation=PatchAugmentation(
            flip_axes=("depth", "height", "width"), deform_chance=0.0, intensity_chance=0.0
        ),
        # Differs from the paper: its code ignores the configured weights (1 and 0.3), so that they
        # are 1 and 0.5, and takes the log-softmax of the cross-entropy along the width instead of
        # over the classes; both are defects.
        loss_function=LossConfig(dice_weight=0.3, ce_weight=1.0, dice_background=True),
        optimization=OptimizationConfig(
            optimizer="adam", lr=1e-3, weight_decay=1e-4, schedule="poly"
        ),
    )


def _paper_augmentation(*flip_axes: Literal["depth", "height", "width"]) -> PatchAugmentation:
    """Flips and sizes of 0.8 to 1.2, for every patch; neither turns nor changes of intensity."""
    # Differs from the paper: each axis is scaled by a factor of its own, the depth too where voxels
    # are about as deep as wide; the paper scales height and width by one factor.
    return PatchAugmentation(
        flip_axes=flip_axes,
        rotation_degrees=0.0,
        scaling=(0.8, 1.2),
        deform_chance=1.0,
        intensity_chance=0.0,
    )


def _lits_cases(*numbers: int) -> tuple[str, ...]:
    """Patterns of cases by their numbers in LiTS, such as volume-34 or liver_34."""
    return tuple(f"*[-_]{number}" for number in numbers)
