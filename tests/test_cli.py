"""The commands' surface; what they do to data is tested in tests/integration."""

import logging
import re
import signal
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml

from voxlift.bench import BenchRow
from voxlift.cli import COMMANDS, runs, weights
from voxlift.core.errors import DataError
from voxlift.quickstart import QuickstartResult
from voxlift.recipes.registry import FINETUNE_RECIPES, PRETRAIN_RECIPES
from voxlift.training.run import Run
from voxlift.weights.bundled import WeightEntry
from voxlift.weights.file import read_header

Command = Callable[..., int]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
def test_help_lists_commands_and_recipes(
    words: list[str], command: Command, capsys: Captured
) -> None:
    assert command(*words) == 0
    shown = capsys.readouterr().out
    for name in [*COMMANDS, *PRETRAIN_RECIPES, *FINETUNE_RECIPES]:
        assert name in shown
    assert "not a medical device" in shown


def test_without_a_command_there_is_help_and_an_error(command: Command, capsys: Captured) -> None:
    assert command() == 2
    assert "usage: voxlift COMMAND" in capsys.readouterr().out


def test_unknown_command_lists_the_known(command: Command, capsys: Captured) -> None:
    assert command("segment") == 2
    assert f"'segment'; known are {', '.join(COMMANDS)}" in capsys.readouterr().err


EVERY_RUN = (
    "--data --recipe --config --out --weights --steps --epochs --batch-size --lr --seed --device "
    "--precision --workers --width --skip-bad --resume --overwrite --debug"
)
FLAGS = {
    "quickstart": "--data --out --seed --overwrite --debug",
    "pretrain": f"{EVERY_RUN} --download --axis-shuffle --image-size",
    "finetune": f"{EVERY_RUN} --task --label-fraction --folds --norm-mode --size-voxels --window",
    "evaluate": "MODEL --data --out --split --batch-size --device --skip-bad --debug",
    "predict": "MODEL INPUT --out --device --debug",
    "inspect": "FILE --into --width --stem --norm --in-channels --num-slices --geometry --debug",
    "convert": "SOURCE --out --to --geometry --in-channels --channels --size-voxels --half "
    "--allow-code --overwrite --debug",
    "push": "MODEL ORG/NAME --private --overwrite --debug",
    "probe": "--data --weights --out --label-fraction --statistics --seed --overwrite --debug",
    "embed": "START INPUT --data --out --pool --statistics --batch-size --overwrite --debug",
    "bench": "--only --json --debug",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command(name: str, command: Command, capsys: Captured) -> None:
    assert command(name, "--help") == 0
    shown = capsys.readouterr().out
    assert f"usage: voxlift {name}" in shown
    for flag in FLAGS[name].split():
        assert flag in shown
    # Every option says its default, or that it is required.
    options = len(re.findall(r"^[│ ]*--\w", shown, flags=re.MULTILINE))
    assert shown.count("(default:") + shown.count("(required)") >= options > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pretrain --no-such-flag", "--no-such-flag"),
        ("pretrain --epochs many", "many"),
        ("pretrain --epochs 0", "greater than or equal to 1"),
        ("pretrain --lr -1", "greater than 0"),
        ("finetune --label-fraction 2", "less than or equal to 1"),
        ("finetune --rotation free", "rotation is 'free' and rotation_degrees is 0"),
        ("evaluate", "MODEL"),
        ("evaluate model --data x --split middle", "middle"),
        ("predict model x --device abacus", "abacus"),
    ],
)
def test_misspelt_commands_are_usage_errors(
    words: str, message: str, command: Command, capsys: Captured
) -> None:
    assert command(*words.split()) == 2
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err + printed.out
    assert message in printed.err + printed.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pretrain --recipe nosuch", "Unknown recipe 'nosuch'; known are photographs"),
        ("finetune --recipe photographs", "known are classify-few"),
        ("pretrain --recipe", "--recipe needs a value"),
        ("pretrain --config nosuch.yaml", "nosuch.yaml cannot be read"),
        ("pretrain --config x.yaml --recipe photographs", "exclude each other"),
        ("predict model", "nothing to predict"),
        ("inspect nosuch.safetensors", "nosuch.safetensors"),
        ("bench --only nosuch", "Unknown benchmark nosuch; known are"),
        ("quickstart --data nosuch.csv --out here", "nosuch.csv is not there"),
    ],
)
def test_settings_that_cannot_be_are_one_clear_error(
    words: str,
    message: str,
    command: Command,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("voxlift.quickstart.STARTS", ("scratch",))
    assert command(*words.split()) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(command: Command) -> None:
    with pytest.raises(DataError, match="nosuch"):
        command("pretrain", "--data", "nosuch", "--debug")


@pytest.mark.parametrize("debug", [False, True])
def test_errors_of_the_system_are_explained_too(
    debug: bool, command: Command, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/somewhere/[odd]")

    monkeypatch.setattr(runs, "pretrain", fail)
    if debug:
        with pytest.raises(PermissionError):
            command("pretrain", "--debug")
    else:
        assert command("pretrain") == 1
        assert "error: /somewhere/[odd]: Permission denied" in capsys.readouterr().err


def test_ctrl_c_outside_of_training(
    command: Command, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "pretrain", stop)
    assert command("pretrain") == 130
    assert "Stopped" in capsys.readouterr().err


def test_interrupted_runs_say_how_to_go_on(
    command: Command, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        runs, "pretrain", lambda *_, **__: Run(Path("runs/[a]"), stopped_by=signal.SIGINT)
    )
    assert command("pretrain") == 130
    assert "--resume (runs/[a])" in capsys.readouterr().err


def test_config_and_options_together(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Captured
) -> None:
    seen: list[tuple[Any, dict[str, bool]]] = []

    def note(config: Any, **flags: bool) -> Run:
        seen.append((config, flags))
        return Run(Path("here"), Path("here/model.safetensors"), {"val/top1": 0.5})

    monkeypatch.setattr(runs, "pretrain", note)
    monkeypatch.setattr(runs, "finetune", note)
    assert command("pretrain", "--recipe", "cifar10-tiny", "--lr", "0.5", "--resume") == 0
    (config, flags), *_ = seen
    assert config == PRETRAIN_RECIPES["cifar10-tiny"]().model_copy(
        update={"optimization": config.optimization}
    )
    assert config.optimization.lr == 0.5
    assert flags == {"resume": True, "overwrite": False}
    assert "val/top1" in capsys.readouterr().out

    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert command("pretrain", f"--config={path}", "--seed=9") == 0
    assert seen[1][0] == config.model_copy(update={"seed": 9})
    # The config of one command is not that of another.
    assert command("finetune", "--config", path) == 1
    assert f"{path}: " in capsys.readouterr().err
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: many", "epochs: Input should be a valid integer"),
        ("no_such_setting: 1", "no_such_setting: Extra inputs"),
        ("- a list", "is not a mapping"),
        ("{", "is not YAML"),
    ],
)
def test_broken_configs_are_explained(
    text: str, message: str, command: Command, capsys: Captured, tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert command("pretrain", "--config", path) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert str(path) in printed


def test_inspect_says_what_a_file_holds(
    pretrained: Run, command: Command, capsys: Captured
) -> None:
    assert command("inspect", pretrained.model_path) == 0
    shown = capsys.readouterr().out
    for words in ("resnet10", "width 4", "thumbnail", "checked, plain, striped", "sha256"):
        assert words in shown


def test_inspect_lists_the_bundled_starts(
    pretrained: Run, command: Command, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pretrained.model_path is not None
    header = read_header(pretrained.model_path)
    entry = WeightEntry(
        name="tiny",
        summary="a stand-in",
        architecture=header.architecture,
        geometry=header.geometry,
        licence="CC0 [1]",
        provenance={},
        card="",
        num_bytes=4_200_000,
    )
    monkeypatch.setattr(weights, "list_weights", lambda: [entry])
    assert command("inspect") == 0
    shown = capsys.readouterr().out
    for words in ("tiny", "a stand-in", "resnet10, width 4", "CC0 [1]", "4.2 MB"):
        assert words in shown


def test_bench_prints_and_writes_rows(
    command: Command, capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    row = BenchRow.from_rates(
        "loading", shape="8x3", ours=30, baseline=20, baseline_name="theirs", same_function=False
    )
    asked: list[Any] = []

    def run_bench(*, only: Any, **_: object) -> list[BenchRow]:
        asked.append(only)
        return [row]

    monkeypatch.setattr(runs, "run_bench", run_bench)
    assert command("bench", "--only", "loading", "--json", tmp_path / "rows.json") == 0
    assert asked == [("loading",)]
    shown = capsys.readouterr().out
    assert "theirs" in shown
    assert "1.5" in shown
    (written,) = yaml.safe_load((tmp_path / "rows.json").read_text())
    assert written["ratio"] == 1.5


def test_quickstart_shows_table_words_and_what_to_type_next(
    command: Command, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = QuickstartResult(
        title="the title",
        columns=("start", "AUROC"),
        rows=(("scratch", "0.5"), ("tiny", "0.6")),
        sentences=("Nothing was gained.",),
        next_commands=("voxlift finetune --data YOUR.csv",),
        results=(),
        folder=Path("runs/q"),
    )
    monkeypatch.setattr(runs, "quickstart", lambda **_: result)
    assert command("quickstart", "--out", "runs/q") == 0
    shown = capsys.readouterr().out
    for words in ("the title", "scratch", "0.6", "Nothing was gained.", "runs/q", "YOUR.csv"):
        assert words in shown


def test_messages_go_to_stderr_and_leave_lightning_out(
    command: Command, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def speak(*_: object, **__: object) -> Run:
        logging.getLogger("voxlift.somewhere").info("reading [a]/b.png")
        logging.getLogger("lightning.pytorch").info("an advertisement")
        return Run(Path("here"), stopped_by=signal.SIGINT)

    monkeypatch.setattr(runs, "pretrain", speak)
    command("pretrain")
    command("pretrain")
    printed = capsys.readouterr()
    assert printed.err.count("reading [a]/b.png") == 2
    assert "advertisement" not in printed.err + printed.out
    assert printed.out == ""


def test_the_installed_program_is_this(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    (program,) = entry_points(group="console_scripts", name="voxlift")
    monkeypatch.setattr("sys.argv", ["voxlift", "nosuch"])
    assert program.load()() == 2
    assert "'nosuch'" in capsys.readouterr().err
