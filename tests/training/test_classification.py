import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from voxlift.config import FinetuneConfig
from voxlift.core.errors import ConfigError, DataError
from voxlift.core.geometry import named_geometry
from voxlift.data.classification_cases import ClassificationCases
from voxlift.inference.classification import predict_cases
from voxlift.inference.saved_model import SavedModel, load_model
from voxlift.metrics.classification import choose_threshold
from voxlift.nets.classifier import Classifier
from voxlift.nets.factory import create_backbone
from voxlift.training.classification import (
    ClassificationData,
    cache_volumes,
    classification_loaders,
    judge,
    open_classification_data,
    save_classifier,
    split_folds,
)
from voxlift.training.run_folder import RunFolder
from voxlift.weights.file import read_header

SIZE = (8, 8, 8)


def make_cases(
    num_classes: int = 2, *, count: int = 40, splits: list[str | None] | None = None
) -> ClassificationCases:
    """Volumes in HU; two of each patient; class 1 is rare."""
    generator = np.random.default_rng(0)
    labels = (np.arange(count) // 2 % 5 == 0).astype(np.int64)
    if num_classes == 3:
        labels = np.arange(count) // 2 % 3
    volumes = generator.normal(-500, 200, (count, *SIZE)).astype(np.float32)
    volumes += 100 * labels[:, None, None, None]
    return ClassificationCases.from_arrays(
        volumes,
        labels,
        class_names=["low", "high", "higher"][:num_classes],
        groups=[f"person-{number // 2}" for number in range(count)],
        splits=splits,
    )


def make_config(out: Path = Path("unused"), **changes: Any) -> FinetuneConfig:
    return FinetuneConfig.model_validate(
        {
            "data": "memory",
            "out": out,
            "batch_size": 4,
            "seed": 2,
            "fractions": (0.5, 0.25, 0.25),
            "machine": {"device": "cpu", "precision": "fp32"},
            **changes,
        }
    )


def groups_of(data: ClassificationData, indices: Any) -> set[str]:
    return {data.cases.groups[index] for index in indices}


def open_data(**changes: Any) -> ClassificationData:
    return open_classification_data(make_config(**changes), make_cases())


def test_splits_divide_no_patient_and_hold_every_class() -> None:
    data = open_data()
    parts = [data.train, data.val, data.test]
    assert sorted(np.concatenate(parts)) == list(range(40))
    patients = [groups_of(data, part) for part in parts]
    assert sum(map(len, patients)) == len(set().union(*patients)) == 20
    for part in parts:
        assert set(data.cases.labels[part]) == {0, 1}
    assert "learning from" in data.describe()


def test_label_fractions_are_nested_and_touch_the_training_cases_only() -> None:
    full = open_data()
    chosen = {share: open_data(label_fraction=share) for share in (0.2, 0.5, 0.8)}
    for data in chosen.values():
        assert np.array_equal(data.val, full.val)
        assert np.array_equal(data.test, full.test)
        assert set(data.cases.labels[data.train]) == {0, 1}
    small, half, most = (set(chosen[share].train.tolist()) for share in (0.2, 0.5, 0.8))
    assert small < half < most < set(full.train.tolist())
    assert len(half) == pytest.approx(len(full.train) / 2, abs=2)


def test_preprocessing_is_proposed_from_the_cases_that_are_learnt_from() -> None:
    cases = make_cases()
    full = open_classification_data(make_config(), cases)
    assert full.preprocessing.unit == "HU"
    assert full.preprocessing.size_voxels == SIZE
    assert "training volumes" in full.reasons[0]
    for index in [*full.val, *full.test]:
        cases.read_volume(int(index)).array[...] = 5000
    again = open_classification_data(make_config(), cases)
    assert again.preprocessing == full.preprocessing


def test_geometry_is_proposed_or_taken() -> None:
    proposed = open_data()
    assert len(proposed.reasons) == 2
    assert "For classify on (8, 8, 8)" in proposed.reasons[1]
    taken = open_data(network={"geometry": "small"})
    assert taken.geometry == named_geometry("small")
    assert len(taken.reasons) == 1


def test_geometry_that_the_volumes_are_too_small_for_is_refused() -> None:
    with pytest.raises(DataError, match="too small for this geometry"):
        open_data(network={"geometry": "volume"})
    with pytest.raises(ConfigError, match="known are pretrain"):
        open_data(network={"geometry": "cubist"})


def test_what_the_user_says_about_volumes_stands() -> None:
    said = {"size_voxels": (6, 7, 8), "window": (-900, -100), "orientation": "stored"}
    preprocessing = open_data(volume=said).preprocessing
    assert said.items() <= preprocessing.model_dump().items()


def test_validation_cases_of_every_class_are_needed() -> None:
    splits: list[str | None] = ["train" if n % 10 < 6 else "test" for n in range(40)]
    splits[12:18] = ["val"] * 6
    cases = make_cases(splits=splits)
    with pytest.raises(DataError, match=r"'high' has no case among the 6 validation.*--folds"):
        open_classification_data(make_config(), cases)
    assert split_folds(open_classification_data(config := make_config(folds=2), cases), config)
    with pytest.raises(DataError, match="0 validation"):
        open_data(fractions=(0.7, 0.0, 0.3))


def test_folds_validate_each_case_once_and_never_the_test_cases() -> None:
    config = make_config(folds=3)
    data = open_classification_data(config, make_cases())
    parts = split_folds(data, config)
    assert len(parts) == 3
    pool = sorted([*data.train, *data.val])
    assert sorted(np.concatenate([part.val for part in parts])) == pool
    for part in parts:
        assert sorted([*part.train, *part.val]) == pool
        assert not groups_of(part, part.train) & groups_of(part, part.val)
        assert set(part.cases.labels[part.val]) == {0, 1}
        assert np.array_equal(part.test, data.test)


def test_one_fold_is_refused() -> None:
    with pytest.raises(ConfigError, match="--folds"):
        split_folds(open_data(), make_config(folds=1))


def test_loaders_train_in_full_batches_and_validate_everything() -> None:
    config = make_config(augmentation={"shift_voxels": 1})
    data = open_classification_data(config, make_cases())
    cache = cache_volumes(data, config)
    train_loader, val_loader = classification_loaders(data, config, cache=cache)
    batches = list(train_loader)
    assert {len(batch["label"]) for batch in batches} == {4}
    assert len(batches) == len(data.train) // 4
    assert {int(i) for batch in batches for i in batch["index"]} <= set(data.train.tolist())
    assert batches[0]["image"].shape == (4, 1, *SIZE)
    assert [int(i) for batch in val_loader for i in batch["index"]] == data.val.tolist()


def test_few_cases_make_one_batch() -> None:
    config = make_config(batch_size=64)
    data = open_classification_data(config, make_cases())
    train_loader, _ = classification_loaders(data, config, cache=cache_volumes(data, config))
    assert [len(batch["label"]) for batch in train_loader] == [len(data.train)]


def test_balanced_sampling_draws_the_rare_class_as_often() -> None:
    config = make_config(balanced_sampling=True)
    data = open_classification_data(config, make_cases(count=80))
    train_loader, _ = classification_loaders(data, config, cache=cache_volumes(data, config))
    labels = []
    for epoch in range(20):
        train_loader.set_epoch(epoch)
        labels += [int(label) for batch in train_loader for label in batch["label"]]
    assert np.mean(data.cases.labels[data.train]) == pytest.approx(0.2, abs=0.05)
    assert np.mean(labels) == pytest.approx(0.5, abs=0.07)


def make_model(data: ClassificationData, *, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    backbone = create_backbone("resnet10", width=4, stem=3, geometry=data.geometry)
    model = Classifier(backbone, num_classes=len(data.cases.class_names))
    torch.nn.init.normal_(model.head.weight, std=0.5)
    return model


def test_saved_classifier_tells_all_that_an_answer_needs(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    data = open_classification_data(config, make_cases())
    model = make_model(data)
    folder = RunFolder(tmp_path)
    save_classifier(model, data, config, folder, {"val/auroc": 0.5})
    header = read_header(folder.model)
    assert header.preprocessing == data.preprocessing
    assert header.geometry == data.geometry
    assert header.head is not None
    assert header.head.task == "classify"
    assert header.head.class_names == ("low", "high")
    assert header.head.settings == {
        "seed": 2,
        "fractions": [0.5, 0.25, 0.25],
        "folds": 0,
        "published_split": None,
    }
    assert header.provenance["metrics"] == {"val/auroc": 0.5}
    assert "person" not in header.to_json()
    # The threshold is that of the validation cases.
    loaded = load_model(folder.model)
    batches = classification_loaders(data, config, cache=cache_volumes(data, config))[1]
    probabilities = np.concatenate([loaded.probabilities(b["image"]).numpy() for b in batches])
    expected = choose_threshold(probabilities, data.cases.labels[data.val])
    assert header.head.threshold == pytest.approx(expected, abs=1e-5)


def test_three_classes_have_no_threshold(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    data = open_classification_data(config, make_cases(3))
    folder = RunFolder(tmp_path)
    save_classifier(make_model(data), data, config, folder, {})
    header = read_header(folder.model)
    assert header.head is not None
    assert header.head.num_classes == 3
    assert header.head.threshold is None


def test_the_saved_model_is_judged_on_the_test_cases(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    data = open_classification_data(config, make_cases())
    save_classifier(make_model(data), data, config, RunFolder(tmp_path), {})
    report = judge(data, config, RunFolder(tmp_path))
    assert report.split == "test"
    assert set(report.baselines) == {"mean_intensity"}
    # The classes differ by their mean.
    assert report.baselines["mean_intensity"].auroc.value == 1
    answered = (tmp_path / "predictions.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in answered] == [f"{index:05d}" for index in data.test]


def test_without_test_cases_the_report_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(tmp_path, fractions=(0.6, 0.4, 0.0))
    data = open_classification_data(config, make_cases())
    save_classifier(make_model(data), data, config, RunFolder(tmp_path), {})
    with caplog.at_level(logging.WARNING):
        report = judge(data, config, RunFolder(tmp_path))
    assert report.split == "val"
    assert "no test cases" in caplog.text


def test_judging_averages_folds(tmp_path: Path) -> None:
    config = make_config(tmp_path, folds=2)
    data = open_classification_data(config, make_cases())
    models = [make_model(data, seed=number) for number in range(2)]
    for number, model in enumerate(models):
        save_classifier(model, data, config, RunFolder(tmp_path / f"fold-{number}"), {})
    judge(data, config, RunFolder(tmp_path))
    head = load_model(tmp_path).head
    lines = (tmp_path / "predictions.csv").read_text().splitlines()[1:]
    answers = [float(line.split(",")[-1]) for line in lines]
    singles = [
        predict_cases(SavedModel((model,), head, data.preprocessing), data.cases, data.test)[:, 1]
        for model in models
    ]
    np.testing.assert_allclose(answers, np.mean(singles, axis=0), atol=2e-6)
