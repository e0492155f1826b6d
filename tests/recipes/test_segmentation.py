from pathlib import Path

import numpy as np
import pytest

from voxlift.core.geometry import named_geometry
from voxlift.core.label_scheme import LabelScheme
from voxlift.data.patch_augmentation import PatchTransform
from voxlift.data.segmentation_cases import SegmentationCase, SegmentationCases
from voxlift.recipes.registry import FINETUNE_RECIPES
from voxlift.recipes.segmentation import (
    bcv,
    hippocampus,
    lidc_segment,
    lidc_segment_full,
    lits_liver,
    segment_few,
)

NAMES = (
    "segment-few",
    "hippocampus",
    "msd",
    "bcv",
    "lits-liver",
    "lidc-segment",
    "lidc-segment-full",
)


def test_bcv_recipe_has_the_papers_classes_and_cases() -> None:
    config = bcv()
    assert len(config.class_names) == 13
    assert config.batch_size * config.accumulate == 8
    assert config.steps == 24 * 13_000 / 8


def test_lits_recipe_has_the_papers_cases() -> None:
    config = lits_liver()
    assert config.scan.bounds == (-200.0, 250.0)
    assert config.batch_size * config.accumulate == 16
    assert config.steps == 500 * 105 // 16
    names = [[f"{kind}{number}" for number in range(131)] for kind in ("volume-", "liver_")]
    for ids in names:
        cases = SegmentationCases(
            tuple(SegmentationCase(each, (), Path(), each) for each in ids),
            LabelScheme(names=("background", "liver"), values=(0, 1)),
        )
        split = cases.with_named_splits(val=config.val_cases, test=config.test_cases)
        assert [len(split.indices(part)) for part in ("train", "val", "test")] == [105, 13, 13]
        assert {ids[i] for i in split.indices("test")} >= {ids[2], ids[112], ids[127]}


def test_lidc_recipes_have_the_papers_geometry() -> None:
    full = lidc_segment_full()
    assert full.batch_size * full.accumulate == 32
    assert full.steps == 2142 * 200 // 32
    for config in (lidc_segment(), full):
        geometry = named_geometry(config.network.geometry)
        assert geometry.stem_stride == (1, 1, 1)
        assert geometry.pool_stride is None
        assert [stride[0] for stride in geometry.stage_strides] == [1, 2, 1, 2]
    assert (lidc_segment().decoder, full.decoder) == ("fcn", "cspr-fcn")


def test_no_recipe_of_the_paper_changes_intensities() -> None:
    for config in (bcv(), lits_liver(), lidc_segment_full()):
        image = np.random.default_rng(0).normal(size=(1, 4, 5, 6)).astype(np.float32)
        augmentation = config.augmentation.model_copy(update={"deform_chance": 0.0})
        transform = PatchTransform(augmentation, size_voxels=(4, 5, 6), spacing_mm=(1, 1, 1))
        for seed in range(5):
            changed, _ = transform(image, np.zeros((4, 5, 6), np.uint8), seed=seed)
            np.testing.assert_array_equal(np.sort(changed, None), np.sort(image, None))


def test_hippocampus_holds_a_fifth_out_and_chooses_by_nothing() -> None:
    config = hippocampus()
    assert config.fractions == (0.8, 0.2, 0.0)
    assert config.keep == "last"
    assert config.class_names == ("anterior", "posterior")
    assert config.augmentation.resolved(config.class_names).flip_axes == ("depth", "width")
    assert segment_few().network.weights == "tiny"


@pytest.mark.parametrize("name", NAMES)
def test_recipe_can_be_run(name: str) -> None:
    config = FINETUNE_RECIPES[name]()
    assert config.task == "segment"
    patch, geometry = config.scan.patch_voxels, config.network.geometry
    if patch is not None:
        named_geometry(geometry).check_size(patch)
