import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from voxlift.config import DetectConfig, FinetuneConfig, PretrainConfig
from voxlift.core.errors import ConfigError, DataError, WeightsError
from voxlift.evaluation import evaluate
from voxlift.training.run import Run
from voxlift.weights.file import read_weight_file, write_weight_file


def manifest_with(path: Path, nodule_folder: Path, change: Any) -> Path:
    """Copy the manifest of the nodules, with each row changed; rows that become None go."""
    with (nodule_folder / "nodules.csv").open(newline="") as file:
        rows = [change(number, row) for number, row in enumerate(csv.DictReader(file))]
    kept = [{**row, "path": nodule_folder / row["path"]} for row in rows if row]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, kept[0])
        writer.writeheader()
        writer.writerows(kept)
    return path


def test_evaluation_repeats_the_numbers_of_the_run(
    finetuned: Run, small_finetuning: FinetuneConfig, tmp_path: Path
) -> None:
    result = evaluate(finetuned.folder, data=small_finetuning.data, out=tmp_path / "again")
    assert (result.task, result.split) == ("classify", "test")
    found = {f"test/{name}": interval.value for name, interval in result.metrics.items()}
    assert found == finetuned.metrics
    # The whole report, intervals and baselines too.
    for name in ("metrics.json", "predictions.csv"):
        again, first = (tmp_path / "again" / name, finetuned.folder / name)
        assert again.read_text() == first.read_text()
    written = json.loads((finetuned.folder / "metrics.json").read_text())
    assert result.metrics["auroc"].low == written["metrics"]["auroc"]["low"]
    expected = written["baselines"]["mean_intensity"]["auroc"]["value"]
    assert result.baselines["mean_intensity"] == expected


@pytest.mark.parametrize(("split", "share"), [("train", 0.5), ("val", 0.25), ("all", 1.0)])
def test_any_split_can_be_judged(
    finetuned: Run, small_finetuning: FinetuneConfig, tmp_path: Path, split: Any, share: float
) -> None:
    result = evaluate(
        finetuned.model_path or "", data=small_finetuning.data, out=tmp_path, split=split
    )
    answered = (tmp_path / "predictions.csv").read_text().splitlines()[1:]
    assert len(answered) == pytest.approx(30 * share, abs=3)
    assert result.split == split
    assert bool(result.baselines) == (split != "all")


def test_splits_of_the_data_are_kept(finetuned: Run, nodule_folder: Path, tmp_path: Path) -> None:
    def add_split(number: int, row: dict[str, str]) -> dict[str, str]:
        person = int(row["group"].removeprefix("person-"))
        return {**row, "split": ("train", "val", "test")[person % 3]}

    data = manifest_with(tmp_path / "split.csv", nodule_folder, add_split)
    evaluate(finetuned.folder, data=str(data), out=tmp_path / "out")
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        judged = {int(Path(row["case"]).name[:2]) for row in csv.DictReader(file)}
    assert judged == {number for number in range(30) if number % 20 % 3 == 2}


def test_data_with_other_classes_is_refused(
    finetuned: Run, nodule_folder: Path, tmp_path: Path
) -> None:
    data = manifest_with(
        tmp_path / "other.csv", nodule_folder, lambda _, row: {**row, "label": f"{row['label']}!"}
    )
    with pytest.raises(DataError, match="smooth!, spiculated!, but the model tells apart smooth"):
        evaluate(finetuned.folder, data=str(data), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_splits_are_made_as_in_the_run(
    finetuned: Run, nodule_folder: Path, tmp_path: Path
) -> None:
    def add_split(number: int, row: dict[str, str]) -> dict[str, str]:
        return {**row, "split": "train" if int(row["group"][7:]) < 14 else "test"}

    data = manifest_with(tmp_path / "split.csv", nodule_folder, add_split)
    result = evaluate(finetuned.folder, data=str(data), out=tmp_path / "out", split="val")
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        judged = {int(Path(row["case"]).name[:2]) for row in csv.DictReader(file)}
    assert judged
    assert all(number % 20 < 14 for number in judged)
    assert result.split == "val"


def test_empty_split_is_refused(finetuned: Run, nodule_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    file = read_weight_file(finetuned.folder / "model.safetensors")
    assert file.header.head is not None
    settings = {**file.header.head.settings, "fractions": [0.5, 0.5, 0.0]}
    head = file.header.head.model_copy(update={"settings": settings})
    write_weight_file(path, file.tensors, file.header.model_copy(update={"head": head}))
    with pytest.raises(DataError, match=r"no cases in the split 'test'.*--split"):
        evaluate(path, data=str(nodule_folder / "nodules.csv"), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_photographs_are_judged_on_what_was_held_out(
    pretrained: Run, small_pretraining: PretrainConfig, tmp_path: Path
) -> None:
    result = evaluate(pretrained.folder, data=small_pretraining.data, out=tmp_path / "out")
    assert (result.task, result.split) == ("pretrain", "val")
    assert set(result.metrics) == {"top1"}
    assert result.metrics["top1"].value == pytest.approx(pretrained.metrics["val/top1"])
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    # A quarter of 24, as in the run; the default would be a tenth.
    assert written["num_images"] == 6
    assert written["top1"] == result.metrics["top1"].value


def test_photographs_that_were_trained_on_are_not_judged(
    pretrained: Run, small_pretraining: PretrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="--split train"):
        evaluate(pretrained.folder, data=small_pretraining.data, out=tmp_path, split="train")


def test_photographs_of_other_classes_are_refused(pretrained: Run, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(3):
            image = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
            image.save(tmp_path / "data" / name / f"{number}.png")
    with pytest.raises(DataError, match=r"cat, dog .*trained on checked, plain"):
        evaluate(pretrained.folder, data=str(tmp_path / "data"), out=tmp_path / "out")


def test_an_evaluation_is_never_written_over(
    finetuned: Run, small_finetuning: FinetuneConfig, tmp_path: Path
) -> None:
    (tmp_path / "metrics.json").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds an evaluation already.*--out"):
        evaluate(finetuned.folder, data=small_finetuning.data, out=tmp_path)
    assert (tmp_path / "metrics.json").read_text() == "mine"
    # The run folder holds the run's own.
    with pytest.raises(ConfigError, match="holds an evaluation already"):
        evaluate(finetuned.folder, data=small_finetuning.data, out=finetuned.folder)


def test_an_unfinished_run_cannot_be_asked(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="--resume"):
        evaluate(tmp_path, data="unread", out=tmp_path / "out")


def test_a_detector_is_judged_as_at_the_end_of_its_run(
    detected: Run, small_detection: DetectConfig, tmp_path: Path
) -> None:
    found = evaluate(detected.folder, data=small_detection.data, out=tmp_path, batch_size=2)
    assert (found.task, found.split) == ("detect", "test")
    for name in ("metrics.json", "predictions.csv", "lesions.csv", "froc.json"):
        assert (tmp_path / name).read_bytes() == (detected.folder / name).read_bytes()
    assert found.metrics["sensitivity"].value == detected.metrics["test/sensitivity"]


def test_runs_of_detectors_are_drawn_over_each_other(
    detected: Run, small_detection: DetectConfig, tmp_path: Path
) -> None:
    evaluate(detected.folder, data=small_detection.data, out=tmp_path, compare=[detected.folder])
    assert (tmp_path / "froc-comparison.png").is_file()
    assert json.loads((tmp_path / "comparison.json").read_text())["differences"][0]["name"]


def test_options_of_detectors_are_refused_for_others(
    finetuned: Run, small_finetuning: FinetuneConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="--images, --compare and --matching are for"):
        evaluate(finetuned.folder, data=small_finetuning.data, out=tmp_path / "x", compare=["y"])


def test_the_overlap_of_a_run_is_that_of_its_evaluation(
    detected: Run, small_detection: DetectConfig, tmp_path: Path
) -> None:
    words = {"data": small_detection.data, "batch_size": 2}
    with pytest.raises(DataError, match="measured by iou, this would be by iobb"):
        evaluate(
            detected.folder,
            out=tmp_path / "a",
            matching="iobb",
            compare=[detected.folder],
            **words,  # type: ignore[arg-type]
        )
    assert not (tmp_path / "a").exists()
    evaluate(detected.folder, out=tmp_path / "b", matching="iobb", **words)  # type: ignore[arg-type]
    report = json.loads((tmp_path / "b" / "metrics.json").read_text())
    assert report["metrics"]["matching"] == "iobb"
