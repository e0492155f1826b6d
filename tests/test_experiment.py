"""Runs from config to run folder; whole stories over several commands are in tests/integration."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from voxlift.config import FinetuneConfig, PretrainConfig
from voxlift.core.errors import ConfigError, DataError, WeightsError
from voxlift.core.geometry import named_geometry
from voxlift.core.preprocessing import Preprocessing
from voxlift.data.classification_cases import ClassificationCases
from voxlift.experiment import finetune, pretrain
from voxlift.training.metrics_file import read_metrics
from voxlift.training.run import Run
from voxlift.weights.file import read_header, read_weight_file

Changes = dict[str, Any]


def changed(config: Any, **changes: Any) -> Any:
    """Copy a config with some settings changed; those of a part are given as a mapping."""
    fields = config.model_dump()
    for name, value in changes.items():
        fields[name] = {**fields[name], **value} if isinstance(fields[name], dict) else value
    return type(config).model_validate(fields)


def values(folder: Path, name: str, split: str = "train") -> list[float]:
    lines = read_metrics(folder / "metrics.jsonl")
    return [line["value"] for line in lines if (line["split"], line["name"]) == (split, name)]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def tensors(run: Run) -> dict[str, torch.Tensor]:
    assert run.model_path is not None
    return read_weight_file(run.model_path).tensors


def test_pretraining_fills_the_run_folder(pretrained: Run) -> None:
    assert pretrained.finished
    names = set(files(pretrained.folder))
    assert {
        "config.yaml",
        "metrics.jsonl",
        "log.txt",
        "environment.json",
        "model.safetensors",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
        "figures/learning_curves.png",
    } <= names
    assert any(name.startswith("tensorboard/events") for name in names)
    assert pretrained.model_path == pretrained.folder / "model.safetensors"
    assert 0 <= pretrained.metrics["val/top1"] <= 1


def test_pretrained_weights_describe_themselves(
    pretrained: Run, small_pretraining: PretrainConfig
) -> None:
    header = read_header(pretrained.folder / "model.safetensors")
    assert header.architecture.name == "resnet10"
    assert (header.architecture.width, header.architecture.stem_kernel) == (4, 3)
    assert header.geometry == named_geometry("thumbnail")
    assert header.preprocessing == Preprocessing.for_photographs(8)
    assert header.head is not None
    assert header.head.class_names == ("checked", "plain", "striped")
    assert header.head.settings == {"seed": 3, "val_fraction": 0.25}
    assert header.provenance["data"] == Path(small_pretraining.data).name
    metrics = header.provenance["metrics"]
    assert isinstance(metrics, dict)
    assert dict(metrics) == {
        name: pytest.approx(value, abs=1e-6) for name, value in pretrained.metrics.items()
    }


def test_metrics_of_each_step_are_written(pretrained: Run) -> None:
    lines = read_metrics(pretrained.folder / "metrics.jsonl")
    assert {tuple(line) for line in lines} == {("step", "epoch", "split", "name", "value")}
    losses = [line for line in lines if (line["split"], line["name"]) == ("train", "loss")]
    # Of two batches an epoch every second is logged; steps count from 0.
    assert [line["step"] for line in losses] == [1, 3]
    assert [line["epoch"] for line in losses] == [0, 1]
    assert len(values(pretrained.folder, "top1", "val")) == 2
    assert values(pretrained.folder, "top1", "val")[-1] == pretrained.metrics["val/top1"]


def test_log_tells_the_whole_story(pretrained: Run, finetuned: Run) -> None:
    log = (pretrained.folder / "log.txt").read_text()
    assert "Training on 18 of 24 images" in log
    assert "Saved" in log
    log = (finetuned.folder / "log.txt").read_text()
    assert "learning from" in log
    assert "training volumes" in log
    assert "For classify on (12, 12, 12)" in log
    assert "100.0% of the backbone's" in log
    assert "person" not in log


def test_finetuning_fills_the_run_folder(finetuned: Run) -> None:
    names = set(files(finetuned.folder))
    assert {
        "config.yaml",
        "metrics.jsonl",
        "metrics.json",
        "predictions.csv",
        "model.safetensors",
        "figures/learning_curves.png",
        "figures/roc.png",
        "figures/confusion.png",
        "figures/reliability.png",
    } <= names
    report = json.loads((finetuned.folder / "metrics.json").read_text())
    assert report["split"] == "test"
    assert set(report["baselines"]) == {"mean_intensity"}
    for name, value in finetuned.metrics.items():
        assert report["metrics"][name.removeprefix("test/")]["value"] == value
    assert {
        "test/auroc",
        "test/auprc",
        "test/accuracy",
        "test/sensitivity",
        "test/specificity",
        "test/calibration_error",
    } <= set(finetuned.metrics)


def test_the_start_is_what_the_network_began_with(
    pretrained: Run, small_finetuning: FinetuneConfig, tmp_path: Path
) -> None:
    """With a rate of almost zero and frozen norms the start comes out as it went in."""
    config = changed(
        small_finetuning,
        out=tmp_path / "run",
        norm_mode="frozen",
        optimization={"lr": 1e-12, "weight_decay": 0.0},
        steps=1,
        val_steps=1,
    )
    after, start = tensors(finetune(config)), tensors(pretrained)
    for name in start:
        if name.startswith("backbone."):
            torch.testing.assert_close(after[name], start[name], rtol=1e-6, atol=1e-9)
    assert after["head.weight"].shape == (2, 32)


def test_predictions_name_the_test_cases(finetuned: Run, nodule_folder: Path) -> None:
    with (finetuned.folder / "predictions.csv").open(newline="") as file:
        answers = list(csv.DictReader(file))
    with (nodule_folder / "nodules.csv").open(newline="") as file:
        listed = {row["path"]: row for row in csv.DictReader(file)}
    assert 5 <= len(answers) <= 11
    for row in answers:
        assert row["label"] == listed[row["case"]]["label"]
        assert float(row["p_smooth"]) + float(row["p_spiculated"]) == pytest.approx(1, abs=2e-6)


def test_the_same_config_gives_the_same_run(
    finetuned: Run, small_finetuning: FinetuneConfig, tmp_path: Path
) -> None:
    again = finetune(changed(small_finetuning, out=tmp_path / "run", machine={"workers": 1}))
    assert again.metrics == finetuned.metrics
    torch.testing.assert_close(tensors(again), tensors(finetuned), rtol=0, atol=0)
    assert values(again.folder, "loss") == values(finetuned.folder, "loss")


def test_another_seed_gives_another_run(
    finetuned: Run, small_finetuning: FinetuneConfig, tmp_path: Path
) -> None:
    other = finetune(changed(small_finetuning, out=tmp_path / "run", seed=6))
    assert values(other.folder, "loss") != values(finetuned.folder, "loss")


@pytest.mark.parametrize("norm_mode", ["frozen", "group"])
def test_norm_modes_reach_the_saved_network(
    small_finetuning: FinetuneConfig, tmp_path: Path, norm_mode: str
) -> None:
    run = finetune(changed(small_finetuning, out=tmp_path / "run", norm_mode=norm_mode))
    header = read_header(run.folder / "model.safetensors")
    assert header.architecture.norm == ("group" if norm_mode == "group" else "batch")
    assert ("backbone.norm1.running_mean" in tensors(run)) == (norm_mode == "frozen")
    assert np.isfinite(run.metrics["test/auroc"])


def test_scratch_and_a_file_differ_in_the_start_alone(
    finetuned: Run, small_finetuning: FinetuneConfig, tmp_path: Path
) -> None:
    network = {"weights": "scratch", "width": 4, "stem": 3}
    scratch = finetune(changed(small_finetuning, out=tmp_path / "run", network=network))
    ours, theirs = (read_header(run.folder / "model.safetensors") for run in (scratch, finetuned))
    assert ours.architecture == theirs.architecture
    assert ours.geometry == theirs.geometry
    assert ours.preprocessing == theirs.preprocessing
    cases = [
        [line.split(",")[0] for line in (run.folder / "predictions.csv").read_text().splitlines()]
        for run in (scratch, finetuned)
    ]
    assert cases[0] == cases[1]
    assert values(scratch.folder, "loss") != values(finetuned.folder, "loss")


def test_early_stop(small_finetuning: FinetuneConfig, tmp_path: Path) -> None:
    # A network that does not change gets no better.
    config = changed(
        small_finetuning,
        out=tmp_path / "run",
        steps=30,
        val_steps=1,
        patience=2,
        optimization={"lr": 1e-12},
        norm_mode="frozen",
    )
    run = finetune(config)
    assert run.finished
    assert len(values(run.folder, "auroc", "val")) == 3
    assert (run.folder / "metrics.json").is_file()


def test_the_best_checkpoint_is_kept_in_finetuning(finetuned: Run) -> None:
    header = read_header(finetuned.folder / "model.safetensors")
    metrics = header.provenance["metrics"]
    assert isinstance(metrics, dict)
    best = max(values(finetuned.folder, "auroc", "val"))
    assert metrics["val/auroc"] == pytest.approx(best, abs=1e-6)


def test_rare_classes_weigh_more_in_the_loss(
    small_finetuning: FinetuneConfig, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    labels = np.array([0] * 24 + [1] * 8)
    volumes = generator.normal(size=(32, 8, 8, 8)).astype(np.float32)
    cases = ClassificationCases.from_arrays(volumes, labels)
    losses = {}
    for weighted in (False, True):
        config = changed(
            small_finetuning,
            out=tmp_path / str(weighted),
            class_weights=weighted,
            steps=1,
            val_steps=1,
            batch_size=16,
            fractions=(0.5, 0.25, 0.25),
        )
        run = finetune(config, cases=cases)
        losses[weighted] = values(run.folder, "loss")[0]
    assert losses[True] != losses[False]


def test_three_classes_in_memory(small_finetuning: FinetuneConfig, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    cases = ClassificationCases.from_arrays(
        generator.normal(size=(30, 8, 8, 8)).astype(np.float32),
        np.arange(30) % 3,
        class_names=["a", "b", "c"],
    )
    run = finetune(changed(small_finetuning, out=tmp_path / "run"), cases=cases)
    head = read_header(run.folder / "model.safetensors").head
    assert head is not None
    assert head.class_names == ("a", "b", "c")
    assert head.threshold is None
    report = json.loads((run.folder / "metrics.json").read_text())
    assert np.array(report["metrics"]["confusion_matrix"]).shape == (3, 3)
    assert np.isfinite(run.metrics["test/auroc"])


PRETRAIN_REFUSALS: dict[str, tuple[Changes, type[Exception], str]] = {
    "no data": ({"data": "nosuch"}, DataError, "nosuch is neither"),
    "no weights": ({"network": {"weights": "nosuch.pt"}}, WeightsError, r"nosuch\.pt"),
    "strided depth": ({"network": {"geometry": "volume"}}, DataError, "too small"),
    "unknown geometry": ({"network": {"geometry": "cubist"}}, ConfigError, "known are pretrain"),
    "too large a batch": ({"batch_size": 500}, DataError, "--batch-size"),
}
FINETUNE_REFUSALS: dict[str, tuple[Changes, type[Exception], str]] = {
    "no data": ({"data": "nosuch.csv"}, DataError, r"nosuch\.csv is not there"),
    "no weights": ({"network": {"weights": "nosuch.pt"}}, WeightsError, r"nosuch\.pt"),
    "another width": ({"network": {"width": 8}}, WeightsError, "width=4, but 8"),
    "strides too much": ({"network": {"geometry": "volume"}}, DataError, "too small"),
    "one fold": ({"folds": 1}, ConfigError, "--folds"),
    "too many folds": ({"folds": 15}, DataError, "--folds"),
    "bad fractions": ({"fractions": (0.5, 0.5, 0.5)}, ConfigError, "fractions"),
}


@pytest.mark.parametrize("case", PRETRAIN_REFUSALS)
def test_a_refused_pretraining_touches_nothing(
    pretrained: Run, small_pretraining: PretrainConfig, case: str
) -> None:
    changes, kind, message = PRETRAIN_REFUSALS[case]
    before = files(pretrained.folder)
    with pytest.raises(kind, match=message):
        pretrain(changed(small_pretraining, **changes), overwrite=True)
    assert files(pretrained.folder) == before


@pytest.mark.parametrize("case", FINETUNE_REFUSALS)
def test_a_refused_finetuning_touches_nothing(
    finetuned: Run, small_finetuning: FinetuneConfig, case: str
) -> None:
    changes, kind, message = FINETUNE_REFUSALS[case]
    before = files(finetuned.folder)
    with pytest.raises(kind, match=message):
        finetune(changed(small_finetuning, **changes), overwrite=True)
    assert files(finetuned.folder) == before


def test_a_full_folder_is_refused_before_the_data_are_read(
    pretrained: Run, small_pretraining: PretrainConfig
) -> None:
    before = files(pretrained.folder)
    with pytest.raises(ConfigError, match=r"not empty.*--resume.*--overwrite.*--out"):
        pretrain(changed(small_pretraining, data="nosuch"))
    assert files(pretrained.folder) == before


def test_progressive_sizes_and_axis_shuffle(
    small_pretraining: PretrainConfig, tmp_path: Path
) -> None:
    config = changed(
        small_pretraining,
        out=tmp_path / "run",
        image_size=12,
        progressive_sizes=((0.5, 8),),
        axis_shuffle=True,
    )
    run = pretrain(config)
    header = read_header(run.folder / "model.safetensors")
    assert header.preprocessing == Preprocessing.for_photographs(12)
    assert header.geometry == named_geometry("thumbnail")
    too_small = changed(config, progressive_sizes=((0.5, 1),), out=tmp_path / "other")
    with pytest.raises(DataError, match="too small"):
        pretrain(too_small)
    assert not (tmp_path / "other").exists()
