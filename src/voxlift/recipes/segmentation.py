"""Recipes for fine-tuning on volumes with masks."""

from pathlib import Path

from voxlift.config import NetworkConfig, ScanConfig, SegmentConfig
from voxlift.data.patch_augmentation import PatchAugmentation
from voxlift.tasks.optimization import OptimizationConfig
from voxlift.tasks.segmentation_loss import LossConfig


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
    return segment_few().model_copy(
        update={
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

    U-Net on five feature maps, patches of 32x256x256, Dice + 0.3 cross-entropy, SGD of rate 0.02
    with polynomial decay. No flips along the width, for sides are classes. The paper's split: of
    the 30 cases 1 to 10 and 21 to 40, the last six are test cases; nothing is chosen by them.

    Source: arXiv 2201.01426, section on BCV; the split is that of UNETR (arXiv 2103.10504).
    Cost: for the paper's network (width 64) a GPU of 24 GB, about a day. The data cannot be passed
    on, so the authors of Voxlift have not run it.
    Command: `voxlift finetune --recipe bcv --data FOLDER --weights FILE`.
    """
    return SegmentConfig(
        recipe="bcv",
        data="FOLDER",
        out=Path("runs/bcv"),
        epochs=1000,
        batch_size=2,
        patches_per_case=2,
        fractions=(1.0, 0.0, 0.0),
        test_cases=("*35", "*36", "*37", "*38", "*39", "*40"),
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
        scan=ScanConfig(patch_voxels=(32, 256, 256), window=(-160.0, 240.0), unit="HU"),
        augmentation=PatchAugmentation(flip_axes=("depth", "height"), rotation_degrees=10.0),
        loss_function=LossConfig(dice_weight=1.0, ce_weight=0.3),
        optimization=OptimizationConfig(optimizer="sgd", lr=0.02, schedule="poly"),
    )


def lits_liver() -> SegmentConfig:
    """Segment the liver in CT (LiTS) by the paper's recipe.

    Slices 1 mm apart, window of width 450 and centre 25 HU, cross-entropy + 0.5 Dice, Adam of rate
    1e-4, 500 epochs. The masks hold 1 for liver and 2 for tumour; both are taken as liver. Predict
    and evaluate with `--largest-component`.

    Source: arXiv 2201.01426, section on LiTS.
    Cost: for the paper's network (width 64) a GPU of 24 GB, about a day; not run by the authors of
    Voxlift.
    Command: `voxlift finetune --recipe lits-liver --data FOLDER --weights FILE`.
    """
    return SegmentConfig(
        recipe="lits-liver",
        data="FOLDER",
        out=Path("runs/lits-liver"),
        epochs=500,
        batch_size=2,
        class_names=("liver", "tumour"),
        regions=("liver=1+2",),
        network=NetworkConfig(geometry="unet"),
        scan=ScanConfig(
            patch_voxels=(32, 256, 256),
            spacing_mm=(1.0, 0.8, 0.8),
            window_width_centre=(450.0, 25.0),
            unit="HU",
        ),
        augmentation=PatchAugmentation(flip_axes=("depth", "height")),
        loss_function=LossConfig(dice_weight=0.5, ce_weight=1.0),
        optimization=OptimizationConfig(optimizer="adam", lr=1e-4, weight_decay=0.0),
    )


def lidc_segment() -> SegmentConfig:
    """Segment lung nodules in CT (LIDC-IDRI) by the paper's head.

    No stride in the stem, no pooling, the FCN head over the stem and the stages 2 and 4,
    cross-entropy + 0.3 Dice, Adam of rate 1e-3.

    Differs from the paper: the start is a bundled one, and the crops are smaller, to run on two CPU
    cores.

    Source: arXiv 2201.01426, section on LIDC segmentation.
    Cost: about 15 minutes on one CPU core.
    Command: `voxlift finetune --recipe lidc-segment --data FOLDER`.
    """
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
