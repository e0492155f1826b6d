"""Segmentation runs from config to run folder, interrupted ones too."""

import csv
import json
import logging
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from voxlift import experiment
from voxlift.config import FinetuneConfig, SegmentConfig
from voxlift.core.errors import ConfigError, DataError
from voxlift.core.geometry import named_geometry
from voxlift.data.classification_cases import ClassificationCases
from voxlift.data.segmentation_source import open_segmentation
from voxlift.data.volume import Volume
from voxlift.experiment import finetune
from voxlift.inference.segmentation_report import SegmentationReport
from voxlift.training.checkpoints import read_checkpoint
from voxlift.training.metrics_file import read_metrics
from voxlift.training.run import Run
from voxlift.weights.file import read_header, read_weight_file

STRUCTURES = ("ball", "bead")


def changed(config: SegmentConfig, **changes: Any) -> SegmentConfig:
    """Copy a config with some settings changed; those of a part are given as a mapping."""
    fields = config.model_dump()
    for name, value in changes.items():
        fields[name] = {**fields[name], **value} if isinstance(fields[name], dict) else value
    return SegmentConfig.model_validate(fields)


def lines(folder: Path) -> list[dict[str, Any]]:
    found = read_metrics(folder / "metrics.jsonl")
    return [line for line in found if line["name"] != "samples_per_second"]


def values(folder: Path, split: str, name: str) -> list[float]:
    return [e["value"] for e in lines(folder) if (e["split"], e["name"]) == (split, name)]


def tensors(run: Run) -> dict[str, torch.Tensor]:
    return read_weight_file(run.folder / "model.safetensors").tensors


@pytest.fixture
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of the time of so small a run."""
    for name in ("plot_dice", "plot_worst_cases"):
        monkeypatch.setattr(f"voxlift.inference.segmentation_report.{name}", lambda *_, **__: None)
    monkeypatch.setattr("voxlift.training.engine.plot_learning_curves", lambda *_, **__: None)


def test_the_run_folder_holds_all_that_is_promised(segmented: Run) -> None:
    assert segmented.finished
    names = {str(p.relative_to(segmented.folder)) for p in segmented.folder.rglob("*")}
    assert {
        "config.yaml",
        "environment.json",
        "log.txt",
        "metrics.jsonl",
        "metrics.json",
        "cases.csv",
        "model.safetensors",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
        "figures/learning_curves.png",
        "figures/dice.png",
        "figures/worst_cases.png",
    } <= names
    log = (segmented.folder / "log.txt").read_text()
    for words in ("learning from 4, watching 2, testing on 2", "MRI", "percentiles", "val/dice"):
        assert words in log


def test_metrics_are_those_of_the_test_cases(segmented: Run) -> None:
    report = json.loads((segmented.folder / "metrics.json").read_text())
    assert report["split"] == "test"
    assert isinstance(segmented.report, SegmentationReport)
    with (segmented.folder / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    # Dice of each structure averaged over cases, then over structures.
    means = []
    for name in STRUCTURES:
        scores = [float(row["dice"]) for row in rows if row["structure"] == name]
        assert len(scores) == 2
        means.append(np.mean(scores))
        assert segmented.metrics[f"test/dice/{name}"] == pytest.approx(means[-1], abs=1e-5)
    assert segmented.metrics["test/dice"] == pytest.approx(np.mean(means), abs=1e-5)
    assert report["metrics"]["means"]["dice"]["value"] == segmented.metrics["test/dice"]
    for name in ("surface_dice", "hd95_mm", "assd_mm", "volume_error_ml"):
        assert f"test/{name}" in segmented.metrics


def test_the_model_tells_all_that_an_answer_needs(
    segmented: Run, small_segmentation: SegmentConfig
) -> None:
    header = read_header(segmented.folder / "model.safetensors")
    assert header.geometry == named_geometry("small")
    assert header.head is not None
    assert header.head.task == "segment"
    assert header.head.class_names == ("background", *STRUCTURES)
    assert header.head.settings["channel_names"] == ["MRI"]
    assert header.head.settings["window_voxels"] == [8, 8, 8]
    assert header.provenance["data"] == Path(small_segmentation.data).name
    # The weights of the best validation were kept.
    metrics = header.provenance["metrics"]
    assert isinstance(metrics, dict)
    best = max(values(segmented.folder, "val", "dice"))
    assert metrics["val/dice"] == pytest.approx(best, abs=1e-6)


def test_each_structure_is_watched_by_its_name(segmented: Run) -> None:
    for name in ("dice", "dice_ball", "dice_bead"):
        assert len(values(segmented.folder, "val", name)) == 2
    means = [
        np.mean(pair)
        for pair in zip(
            *(values(segmented.folder, "val", f"dice_{name}") for name in STRUCTURES), strict=True
        )
    ]
    assert values(segmented.folder, "val", "dice") == pytest.approx(means, abs=1e-6)


@pytest.mark.usefixtures("_no_figures")
def test_the_same_config_gives_the_same_run(
    segmented: Run, small_segmentation: SegmentConfig, tmp_path: Path
) -> None:
    config = changed(
        small_segmentation, out=tmp_path / "run", machine={"workers": 1, "cache_gb": 0.0}
    )
    again = finetune(config)
    assert again.metrics == segmented.metrics
    assert lines(again.folder) == lines(segmented.folder)
    torch.testing.assert_close(tensors(again), tensors(segmented), rtol=0, atol=0)


class Stop(Callback):
    """Ask the run to stop in the middle of a batch, or break it."""

    def __init__(self, step: int, *, crash: bool) -> None:
        self.step = step
        self.crash = crash

    def on_before_backward(self, trainer: Any, *_: object) -> None:
        if trainer.global_step != self.step:
            return
        if self.crash:
            raise RuntimeError("the power went off")
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("_no_figures")
@pytest.mark.parametrize("crash", [False, True], ids=["ctrl-c", "crash"])
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(
    segmented: Run,
    small_segmentation: SegmentConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    crash: bool,
) -> None:
    config = changed(small_segmentation, out=tmp_path / "run", checkpoint_steps=4)
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "early_stop", lambda *_: (Stop(4, crash=crash),))
        if crash:
            with pytest.raises(RuntimeError, match="power"):
                finetune(config)
        else:
            assert not finetune(config).finished
    kept = read_checkpoint(config.out / "checkpoints" / "last.ckpt")["global_step"]
    assert kept == (4 if crash else 5)
    assert not (config.out / "model.safetensors").exists()
    resumed = finetune(config, resume=True)
    assert lines(resumed.folder) == lines(segmented.folder)
    assert resumed.metrics == segmented.metrics
    torch.testing.assert_close(tensors(resumed), tensors(segmented), rtol=0, atol=0)


@pytest.mark.usefixtures("_no_figures")
def test_the_last_weights_are_kept_if_asked_for(
    segmented: Run, small_segmentation: SegmentConfig, tmp_path: Path
) -> None:
    config = changed(small_segmentation, out=tmp_path / "run", keep="last")
    run = finetune(config)
    checkpoints = {
        name: read_checkpoint(run.folder / "checkpoints" / f"{name}.ckpt")["state_dict"]
        for name in ("best", "last")
    }
    for name, tensor in tensors(run).items():
        torch.testing.assert_close(tensor, checkpoints["last"][f"model.{name}"], rtol=0, atol=0)
    for name, tensor in tensors(segmented).items():
        torch.testing.assert_close(
            tensor,
            read_checkpoint(segmented.folder / "checkpoints" / "best.ckpt")["state_dict"][
                f"model.{name}"
            ],
            rtol=0,
            atol=0,
        )


@pytest.mark.usefixtures("_no_figures")
def test_runs_without_validation_or_without_any_other_case(
    small_segmentation: SegmentConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(DataError, match="--keep last"):
        finetune(changed(small_segmentation, out=tmp_path / "no", fractions=(0.8, 0.0, 0.2)))
    assert not (tmp_path / "no").exists()
    only_test = finetune(
        changed(small_segmentation, out=tmp_path / "test", fractions=(0.8, 0.0, 0.2), keep="last")
    )
    assert "test/dice" in only_test.metrics
    assert values(only_test.folder, "val", "dice") == []
    with caplog.at_level(logging.WARNING):
        alone = finetune(
            changed(
                small_segmentation, out=tmp_path / "all", fractions=(1.0, 0.0, 0.0), keep="last"
            )
        )
    assert alone.finished
    assert alone.report is None
    assert "no cases left to judge" in caplog.text
    assert alone.model_path is not None
    assert alone.model_path.is_file()


@pytest.mark.usefixtures("_no_figures")
def test_a_start_of_photographs_for_two_channels_fcn_and_regions(
    pretrained: Run,
    small_segmentation: SegmentConfig,
    ball_folder: Path,
    tmp_path: Path,
) -> None:
    cases = open_segmentation(ball_folder, regions={"all": (1, 2), "small": (2,)})
    two = tuple(replace(case, images=case.images * 2) for case in cases.cases)
    cases = replace(cases, cases=two, channel_names=("T1", "T2"), facts=())
    config = changed(
        small_segmentation,
        out=tmp_path / "run",
        decoder="fcn",
        steps=2,
        val_steps=2,
        network={
            "weights": str(pretrained.model_path),
            "width": None,
            "stem": None,
            "geometry": "nodule",
        },
    )
    run = finetune(config, cases=cases)
    assert "test/dice/small" in run.metrics
    header = read_header(run.folder / "model.safetensors")
    assert header.architecture.in_channels == 2
    assert header.head is not None
    assert header.head.class_names == ("all", "small")
    # The report of the load tells what became of the stem.
    log = (run.folder / "log.txt").read_text()
    assert "adapted" in log
    assert "conv1.weight" in log


REFUSALS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no data": ({"data": "nosuch"}, DataError, "nosuch"),
    "bad fractions": ({"fractions": (0.5, 0.5, 0.5)}, ConfigError, "fractions"),
    "too many classes named": ({"class_names": ("a", "b", "c")}, DataError, "a, b, c"),
    "unknown region": ({"regions": ("core=7",)}, DataError, "7"),
    "strides too much": ({"network": {"geometry": "volume"}}, DataError, "too small"),
    "deep fcn": ({"decoder": "fcn", "deep_supervision": True}, ConfigError, "one level"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refused_run_touches_nothing(
    small_segmentation: SegmentConfig, tmp_path: Path, case: str
) -> None:
    changes, kind, message = REFUSALS[case]
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(kind, match=message):
        finetune(changed(small_segmentation, out=tmp_path / "run", **changes), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_cases_of_the_other_task_are_refused(
    small_segmentation: SegmentConfig, small_finetuning: FinetuneConfig, ball_folder: Path
) -> None:
    classified = ClassificationCases.from_arrays(np.zeros((2, 3, 3, 3)), [0, 1])
    with pytest.raises(ConfigError, match="takes SegmentationCases"):
        finetune(small_segmentation.model_copy(update={"out": Path("unused")}), cases=classified)
    masked = open_segmentation(ball_folder)
    with pytest.raises(ConfigError, match="takes ClassificationCases"):
        finetune(small_finetuning.model_copy(update={"out": Path("unused")}), cases=masked)


@pytest.mark.usefixtures("_no_figures")
def test_cases_in_memory_are_checked_first(
    small_segmentation: SegmentConfig, ball_folder: Path, tmp_path: Path
) -> None:
    cases = open_segmentation(ball_folder)
    broken = replace(cases.cases[3], label=Volume(np.full((12, 13, 14), 9, np.uint8)))
    spoilt = replace(cases, cases=(*cases.cases[:3], broken, *cases.cases[4:]), facts=())
    config = changed(small_segmentation, out=tmp_path / "run", steps=1, val_steps=1)
    with pytest.raises(DataError, match="balls_03"):
        finetune(config, cases=spoilt)
    run = finetune(changed(config, skip_bad=True), cases=spoilt)
    assert "7 cases" in (run.folder / "log.txt").read_text()
