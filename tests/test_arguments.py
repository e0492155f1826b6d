import dataclasses
import inspect
import re
from typing import Any

import pytest
import tyro

from voxlift.arguments import (
    STYLE,
    BenchCommand,
    ConvertCommand,
    DetectCommand,
    EmbedCommand,
    EvaluateCommand,
    FinetuneCommand,
    Flags,
    InspectCommand,
    PredictCommand,
    PretrainCommand,
    ProbeCommand,
    PushCommand,
    QuickstartCommand,
)
from voxlift.recipes.detection import detect_few
from voxlift.recipes.pretraining import photographs
from voxlift.recipes.transfer import classify_few

COMMANDS: list[type[Any]] = [
    BenchCommand,
    ConvertCommand,
    DetectCommand,
    EmbedCommand,
    EvaluateCommand,
    FinetuneCommand,
    Flags,
    InspectCommand,
    PredictCommand,
    PretrainCommand,
    ProbeCommand,
    PushCommand,
    QuickstartCommand,
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_every_argument_is_documented(command: type[Any]) -> None:
    told = re.findall(r"^    (\w+):", inspect.getdoc(command) or "", flags=re.MULTILINE)
    assert told == [field.name for field in dataclasses.fields(command)]


def parse(command: type[Any], *words: str, default: Any = None) -> Any:
    return tyro.cli(command, args=list(words), default=default, config=STYLE)


def test_options_change_one_setting_each() -> None:
    default = PretrainCommand(photographs())
    unchanged = parse(PretrainCommand, default=default)
    assert unchanged.run == photographs()
    words = "--lr 0.5 --width 8 --steps 7 --no-slice-shuffle --axis-shuffle --crop none --overwrite"
    changed = parse(PretrainCommand, *words.split(), default=default)
    assert changed.flags == Flags(overwrite=True)
    run = changed.run
    assert (run.optimization.lr, run.network.width, run.steps) == (0.5, 8, 7)
    assert (run.slice_shuffle, run.axis_shuffle, run.augmentation.crop) == (False, True, "none")
    expected = photographs().model_dump()
    found = run.model_dump()
    assert found["machine"] == expected["machine"]
    assert found["epochs"] == expected["epochs"]


def test_switches_can_be_turned_back() -> None:
    config = classify_few().model_copy(update={"skip_bad": True, "class_weights": True})
    command = parse(
        FinetuneCommand, "--no-skip-bad", "--no-class-weights", default=FinetuneCommand(config)
    )
    assert not command.run.skip_bad
    assert not command.run.class_weights


def test_triples_and_pairs() -> None:
    words = "--size-voxels 8 9 10 --spacing-mm 2.5 1 1 --window -1000 400 --flip-axes depth width"
    default = FinetuneCommand(classify_few())
    run = parse(FinetuneCommand, *words.split(), default=default).run
    assert run.volume.size_voxels == (8, 9, 10)
    assert run.volume.spacing_mm == (2.5, 1.0, 1.0)
    assert run.volume.window == (-1000.0, 400.0)
    assert run.augmentation.flip_axes == ("depth", "width")


def test_inputs_are_as_many_as_there_are() -> None:
    command = parse(PredictCommand, "model", "a.nii.gz", "b", "c.mha", "--device", "cpu")
    assert command.model == "model"
    assert command.inputs == ("a.nii.gz", "b", "c.mha")
    assert parse(InspectCommand).file is None
    assert parse(InspectCommand, "tiny").file == "tiny"


def test_windows_of_ct_go_by_name_or_by_hounsfield_units() -> None:
    default = DetectCommand(detect_few())
    for words, window in (("lung", "lung"), ("-160 240", (-160.0, 240.0))):
        command = parse(DetectCommand, "--window", *words.split(), default=default)
        assert command.run.slices.window == window
    assert parse(DetectCommand, default=default).run == detect_few()


def test_options_of_a_detector() -> None:
    words = "--head fcos --num-slices 5 --anchor-ratios 1 2 --image-sizes 96 128 --noisy ignore"
    run = parse(DetectCommand, *words.split(), default=DetectCommand(detect_few())).run
    assert (run.detector.head, run.detector.anchor_ratios) == ("fcos", (1.0, 2.0))
    assert (run.slices.num_slices, run.augmentation.image_sizes) == (5, (96, 128))
    assert run.noisy == "ignore"
