"""What a saved model says about volumes on disk, and options that do not go with it."""

import csv
from pathlib import Path

import pytest

from voxlift.core.errors import ConfigError, WeightsError
from voxlift.inference.volumes import Predictions
from voxlift.nets.factory import create_backbone
from voxlift.prediction import DetectionOutput, SegmentationOutput, predict
from voxlift.training.run import Run
from voxlift.weights.save import save_weights


def test_predict_answers_like_the_evaluation(
    finetuned: Run, nodule_folder: Path, tmp_path: Path
) -> None:
    done: list[Path] = []
    result = predict(
        finetuned.folder,
        [nodule_folder / "volumes"],
        out=tmp_path,
        on_case=lambda path, *_: done.append(path),
    )
    assert isinstance(result, Predictions)
    assert len(result.predictions) == len(done) == 30
    assert not result.failures
    by_name = {answer.path.name: answer for answer in result.predictions}
    with (finetuned.folder / "predictions.csv").open(newline="") as file:
        judged = list(csv.DictReader(file))
    assert judged
    for row in judged:
        answer = by_name[Path(row["case"]).name]
        assert answer.class_name == row["prediction"]
        assert answer.probabilities[1] == pytest.approx(float(row["p_spiculated"]), abs=2e-5)


def test_an_unfinished_run_cannot_be_asked(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="--resume"):
        predict(tmp_path, ["unread"], out=tmp_path / "out")


def test_photographs_are_no_classifier_of_volumes(
    pretrained: Run, nodule_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"trained on photographs.*voxlift finetune"):
        predict(pretrained.folder, [nodule_folder], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_backbone_without_a_head_is_no_model(finetuned: Run, tmp_path: Path) -> None:
    backbone = create_backbone("resnet10", weights=finetuned.model_path)
    path = save_weights(backbone, tmp_path / "backbone.safetensors")
    with pytest.raises(WeightsError, match="backbone alone"):
        predict(path, [tmp_path], out=tmp_path / "out")


def test_options_of_another_task_are_refused(
    finetuned: Run, segmented: Run, detected: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for run in (finetuned, detected):
        with pytest.raises(ConfigError, match=r"trained to (classify|detect); options of segment"):
            predict(run.folder, ["unread"], out=out, segmentation=SegmentationOutput(mirror=True))
    for run in (finetuned, segmented):
        with pytest.raises(ConfigError, match=r"trained to (classify|segment); options of detect"):
            predict(run.folder, ["unread"], out=out, detection=DetectionOutput(fast_context=True))
    with pytest.raises(ConfigError, match="options of writing files"):
        predict(finetuned.folder, ["unread"], out=out, overwrite=True)
    assert not out.exists()
