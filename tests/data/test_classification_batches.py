"""Batches of labelled volumes: order, changes and cache, and the real sets end to end."""

import csv
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from voxlift.core.errors import ConfigError, DataError
from voxlift.core.preprocessing import Preprocessing
from voxlift.core.randomness import numpy_generator
from voxlift.data.case_statistics import case_statistics
from voxlift.data.classification_batches import (
    VolumeAugmentation,
    VolumeBatch,
    VolumeCache,
    volume_loader,
)
from voxlift.data.classification_cases import ClassificationCases
from voxlift.data.classification_source import open_classification
from voxlift.data.epoch_order import ResumableLoader
from voxlift.data.preprocess import PreprocessingWarning
from voxlift.data.volume_augmentation import apply_change, draw_change

VOLUMES = np.random.default_rng(0).normal(size=(10, 6, 6, 6)).astype(np.float32)
LABELS = np.array([0, 1, 0, 0, 0, 1, 0, 0, 0, 0])
CASES = ClassificationCases.from_arrays(VOLUMES, LABELS)
PREPROCESSING = Preprocessing(size_voxels=(4, 4, 4), mean=0.5, std=2.0)
AUGMENTATION = VolumeAugmentation(
    shift_voxels=1, rotation="quarter-turns", flip_axes=("depth",), noise_std=0.1
)


def make(
    *,
    indices: np.ndarray | None = None,
    augmentation: VolumeAugmentation | None = AUGMENTATION,
    workers: int = 0,
    shuffle: bool = True,
    balanced: bool = False,
    cache: VolumeCache | None = None,
    cache_gb: float = 1.0,
) -> ResumableLoader[VolumeBatch]:
    return volume_loader(
        CASES,
        np.arange(10) if indices is None else indices,
        preprocessing=PREPROCESSING,
        augmentation=augmentation,
        batch_size=4,
        seed=3,
        workers=workers,
        shuffle=shuffle,
        balanced=balanced,
        cache=cache,
        cache_gb=cache_gb,
    )


def same(left: list[VolumeBatch], right: list[VolumeBatch]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a["image"], b["image"])
        and torch.equal(a["label"], b["label"])
        and torch.equal(a["index"], b["index"])
        for a, b in zip(left, right, strict=True)
    )


def test_batches_without_changes_are_the_preprocessed_volumes() -> None:
    indices = np.array([7, 1, 5, 2, 0])
    batches = list(make(indices=indices, augmentation=None, shuffle=False))
    assert [len(batch["label"]) for batch in batches] == [4, 1]
    image = torch.cat([batch["image"] for batch in batches])
    assert image.dtype == torch.float32
    expected = (VOLUMES[indices, 1:5, 1:5, 1:5] - 0.5) / 2
    np.testing.assert_allclose(image[:, 0].numpy(), expected, rtol=1e-6)
    assert torch.cat([batch["index"] for batch in batches]).tolist() == indices.tolist()
    assert torch.cat([batch["label"] for batch in batches]).tolist() == LABELS[indices].tolist()
    assert batches[0]["label"].dtype == torch.int64


def test_changes_follow_from_seed_epoch_and_case() -> None:
    loader = make(indices=np.array([3, 8]))
    loader.set_epoch(5)
    (batch,) = list(loader)
    normalised = ((VOLUMES - 0.5) / 2)[:, None]
    for image, index in zip(batch["image"], batch["index"].tolist(), strict=True):
        change = draw_change(
            AUGMENTATION,
            size_voxels=(4, 4, 4),
            generator=numpy_generator(3, "augment", 5, index),
        )
        expected = apply_change(normalised[index], change, margin_voxels=1)
        np.testing.assert_allclose(image.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cache_gb", [1.0, 1e-6, 0.0])
def test_the_batches_are_the_same_for_any_workers_and_cache(cache_gb: float) -> None:
    expected = list(make())
    assert same(expected, list(make(cache_gb=cache_gb)))
    if cache_gb == 1e-6:
        assert same(expected, list(make(workers=2, cache_gb=cache_gb)))


def test_epochs_differ_and_repeat() -> None:
    loader = make()
    first = list(loader)
    loader.set_epoch(1)
    second = list(loader)
    assert not same(first, second)
    loader.set_epoch(0)
    assert same(first, list(loader))


def test_resumes_in_the_middle_of_an_epoch() -> None:
    loader = make()
    loader.set_epoch(2)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    rest = list(batches)
    resumed = make()
    resumed.load_state_dict(state)
    assert same(rest, list(resumed))


def test_balanced_sampling_draws_classes_equally_often() -> None:
    loader = make(balanced=True)
    drawn = []
    for epoch in range(60):
        loader.set_epoch(epoch)
        drawn += [int(label) for batch in loader for label in batch["label"]]
    assert abs(np.mean(drawn) - 0.5) < 0.05


def test_the_cache_says_what_does_not_fit(caplog: pytest.LogCaptureFixture) -> None:
    one_volume_gb = 6**3 * 4 / 1e9
    with caplog.at_level(logging.INFO):
        cache = VolumeCache(
            CASES,
            np.arange(10),
            preprocessing=PREPROCESSING,
            margin_voxels=1,
            cache_gb=3.5 * one_volume_gb,
        )
    assert "3 of 10 volumes fit" in caplog.text
    assert [index in cache for index in range(10)] == [True] * 3 + [False] * 7


def test_a_cache_serves_several_loaders_and_smaller_margins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = VolumeCache(CASES, np.arange(10), preprocessing=PREPROCESSING, margin_voxels=1)
    with_own = list(make(augmentation=None)), list(make())

    def refuse(self: ClassificationCases, index: int) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(ClassificationCases, "read_volume", refuse)
    assert same(with_own[0], list(make(augmentation=None, cache=cache)))
    assert same(with_own[1], list(make(cache=cache)))


def test_a_cache_of_something_else_is_refused() -> None:
    cache = VolumeCache(CASES, np.arange(2), preprocessing=PREPROCESSING)
    with pytest.raises(ConfigError, match=r"margin of 0 voxels.*up to 1"):
        make(cache=cache)
    other = VolumeCache(CASES, np.arange(2), preprocessing=Preprocessing())
    with pytest.raises(ConfigError, match="another preprocessing"):
        make(augmentation=None, cache=other)
    with pytest.raises(ConfigError, match="0 or more"):
        make(cache_gb=-1.0)


def test_sizes_that_do_not_stack_are_an_error() -> None:
    volumes = [np.zeros((4, 4, 4)), np.ones((4, 4, 5))]
    cases = ClassificationCases.from_arrays(volumes, [0, 1])

    def load(batch_size: int) -> list[VolumeBatch]:
        return list(
            volume_loader(
                cases,
                np.arange(2),
                preprocessing=Preprocessing(),
                batch_size=batch_size,
                seed=0,
                shuffle=False,
            )
        )

    assert [tuple(b["image"].shape) for b in load(1)] == [(1, 1, 4, 4, 4), (1, 1, 4, 4, 5)]
    with pytest.raises(DataError, match=r"\(4, 4, 4\) and \(4, 4, 5\).*size_voxels"):
        load(2)


def test_eight_bit_data_for_hu_warn_once_for_the_whole_set() -> None:
    cases = ClassificationCases.from_arrays(np.full((6, 3, 3, 3), 9, np.uint8), [0, 1] * 3)
    with pytest.warns(PreprocessingWarning) as caught:
        VolumeCache(cases, np.arange(6), preprocessing=Preprocessing(unit="HU"))
    assert len(caught) == 1
    assert "arrays: 00000" in str(caught[0].message)


def write_lidc_manifest(folder: Path, out: Path) -> Path:
    """List the nodules as `path,label,group,split,mask`."""
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    path = out / "lidc.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "group", "split", "mask"])
        for row in rows:
            image = folder / "images" / f"{row['name']}.nii.gz"
            mask = folder / "labels" / f"{row['name']}.nii.gz"
            writer.writerow([image, row["diagnosis"], row["patient_id"], row["split"], mask])
    return path


@pytest.mark.data
def test_lidc_nodules_from_a_manifest(data_folder: Path, tmp_path: Path) -> None:
    folder = data_folder / "lidc-nodules"
    cases = open_classification(write_lidc_manifest(folder, tmp_path)).with_splits(seed=0)
    assert len(cases) == 801
    assert len(set(cases.groups)) == 441
    assert np.bincount(cases.labels).tolist() == [530, 271]
    assert len(cases.indices("val")) == 106
    groups = np.array(cases.groups)
    parts = [set(groups[cases.indices(split)]) for split in ("train", "val", "test")]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    chosen = cases.indices("val")[:12]
    preprocessing = Preprocessing(
        spacing_mm=(1.0, 1.0, 1.0),
        intensity="window",
        window=(-1000, 400),
        unit="HU",
        size_voxels=(32, 32, 32),
    )
    (batch,) = list(
        volume_loader(
            cases, chosen, preprocessing=preprocessing, batch_size=12, seed=0, shuffle=False
        )
    )
    assert tuple(batch["image"].shape) == (12, 1, 32, 32, 32)
    assert 0 <= float(batch["image"].min()) < float(batch["image"].max()) <= 1
    with (folder / "labels.csv").open() as file:
        voxels = {row["name"]: row for row in csv.DictReader(file)}
    sizes = case_statistics(cases, chosen).mask_volume_mm3
    assert sizes is not None
    for index, size in zip(chosen.tolist(), sizes, strict=True):
        row = voxels[Path(cases.cases[index].id).name.removesuffix(".nii.gz")]
        expected = int(row["mask_voxels"]) * float(row["sx"]) * float(row["sy"]) * float(row["sz"])
        assert size == pytest.approx(expected, rel=1e-4)


@pytest.mark.data
def test_adrenalmnist3d_batches(data_folder: Path) -> None:
    cases = open_classification(data_folder / "adrenalmnist3d-trainval.npz")
    loader = volume_loader(
        cases,
        cases.indices("val"),
        preprocessing=Preprocessing(intensity="window", window=(0, 255), unit="0-255"),
        batch_size=98,
        seed=0,
        shuffle=False,
    )
    (batch,) = list(loader)
    with np.load(data_folder / "adrenalmnist3d-trainval.npz") as stored:
        np.testing.assert_array_equal(
            batch["image"][:, 0].numpy(), (stored["val_images"] / 255).astype(np.float32)
        )
        np.testing.assert_array_equal(batch["label"].numpy(), stored["val_labels"][:, 0])
