import errno
import json
import logging
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from voxlift.config import MachineConfig, PretrainConfig
from voxlift.core.errors import ConfigError, DataError
from voxlift.training.run_folder import (
    check_run_folder,
    config_differences,
    describe_environment,
    load_yaml,
    logging_to,
    open_run_folder,
    remembering_log,
)

OPTIMIZATION = {"optimizer": "adamw", "lr": 1e-5, "schedule": "milestones", "milestones": (0.5, 1)}


@pytest.fixture
def config(tmp_path: Path) -> PretrainConfig:
    return PretrainConfig.model_validate(
        {"out": tmp_path / "run", "optimization": OPTIMIZATION, "progressive_sizes": ((0.4, 24),)}
    )


def changed(config: PretrainConfig, **changes: Any) -> PretrainConfig:
    return PretrainConfig.model_validate({**config.model_dump(), **changes})


def test_config_in_the_folder_runs_again(config: PretrainConfig) -> None:
    folder = open_run_folder(config)
    assert PretrainConfig.model_validate(load_yaml(folder.config)) == config
    environment = json.loads(folder.environment.read_text())
    assert environment["packages"]["voxlift"] == "0.1.0"
    assert folder.checkpoints.is_dir()
    assert folder.figures.is_dir()


def test_an_unfinished_or_foreign_folder_is_refused(config: PretrainConfig) -> None:
    config.out.mkdir()
    (config.out / "thesis.tex").write_text("ten years of work")
    with pytest.raises(ConfigError, match=r"not empty.*--resume.*--overwrite.*--out"):
        open_run_folder(config)
    with pytest.raises(ConfigError, match="holds no run of Voxlift"):
        open_run_folder(config, overwrite=True)
    with pytest.raises(ConfigError, match="holds no run of Voxlift"):
        open_run_folder(config, resume=True)
    assert (config.out / "thesis.tex").read_text() == "ten years of work"
    assert [path.name for path in config.out.iterdir()] == ["thesis.tex"]


def test_a_config_that_is_not_of_a_run_does_not_make_a_run(config: PretrainConfig) -> None:
    config.out.mkdir()
    (config.out / "config.yaml").write_text("database: production\n")
    with pytest.raises(ConfigError, match="holds no run of Voxlift"):
        open_run_folder(config, overwrite=True)
    (config.out / "config.yaml").write_text("no: [yaml")
    with pytest.raises(ConfigError, match="is not YAML"):
        open_run_folder(config, overwrite=True)
    assert (config.out / "config.yaml").is_file()


def test_a_run_that_cannot_be_deleted_is_told(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_run_folder(config)

    def busy(path: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", path)

    monkeypatch.setattr(shutil, "rmtree", busy)
    with pytest.raises(ConfigError, match="cannot be deleted: Device or resource busy"):
        open_run_folder(config, overwrite=True)
    # What is left is still known as a run.
    monkeypatch.undo()
    open_run_folder(config, overwrite=True)


def test_overwrite_replaces_a_run(config: PretrainConfig) -> None:
    folder = open_run_folder(config)
    folder.metrics.write_text("old")
    with pytest.raises(ConfigError, match="not empty"):
        open_run_folder(config)
    assert folder.metrics.read_text() == "old"
    open_run_folder(changed(config, seed=5), overwrite=True)
    assert not folder.metrics.exists()
    assert load_yaml(folder.config)["seed"] == 5


def test_resume_begins_what_was_killed_before_its_first_file(config: PretrainConfig) -> None:
    for flags in ({"resume": True}, {}):
        config.out.mkdir()
        (config.out / ".voxlift-0123abcd.config.yaml").write_text("seed: 3")
        open_run_folder(config, **flags)
        names = {path.name for path in config.out.iterdir()}
        assert names == {"config.yaml", "environment.json", "checkpoints", "figures"}
        shutil.rmtree(config.out)


def test_what_killed_processes_left_is_removed(config: PretrainConfig) -> None:
    folder = open_run_folder(config)
    ours = folder.checkpoints / ".voxlift-0123abcd.last.ckpt"
    users = [".voxlift-notes.txt", ".0123abcd.last.ckpt", "voxlift-0123abcd.last.ckpt"]
    for name in (ours.name, *users):
        (folder.checkpoints / name).write_text("")
    open_run_folder(config, resume=True)
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == sorted(users)


def test_a_killed_overwrite_leaves_a_run(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_run_folder(config)
    monkeypatch.setattr(shutil, "rmtree", lambda _: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        open_run_folder(config, overwrite=True)
    monkeypatch.undo()
    open_run_folder(config, overwrite=True)


def test_flags_that_exclude_each_other(config: PretrainConfig) -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        open_run_folder(config, resume=True, overwrite=True)


def test_a_file_is_no_run_folder(config: PretrainConfig) -> None:
    config.out.write_text("a file")
    for flags in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(ConfigError, match="is a file"):
            open_run_folder(config, **flags)
    assert config.out.read_text() == "a file"


def test_a_changed_config_is_refused_with_the_difference(config: PretrainConfig) -> None:
    folder = open_run_folder(config)
    before = folder.config.read_text()
    other = changed(
        config,
        batch_size=64,
        optimization={**OPTIMIZATION, "lr": 2e-5},
        machine={"precision": "bf16"},
    )
    with pytest.raises(ConfigError) as caught:
        open_run_folder(other, resume=True)
    message = str(caught.value)
    assert "  batch_size: was 32, is 64\n" in message
    assert "  optimization.lr: was 1e-05, is 2e-05\n" in message
    assert "  machine.precision: was 'auto', is 'bf16'\n" in message
    assert "seed" not in message
    assert folder.config.read_text() == before


def test_epochs_device_and_workers_may_change(config: PretrainConfig) -> None:
    open_run_folder(config)
    machine = MachineConfig(device="cpu", workers=2, cache_gb=1, compile=True)
    resumed = changed(config, epochs=20, machine=machine.model_dump())
    folder = open_run_folder(resumed, resume=True)
    assert load_yaml(folder.config)["epochs"] == 20


def test_a_moved_run_can_be_resumed(config: PretrainConfig, tmp_path: Path) -> None:
    open_run_folder(config)
    config.out.rename(tmp_path / "moved")
    open_run_folder(changed(config, out=tmp_path / "moved"), resume=True)


def test_settings_that_came_or_went_are_differences() -> None:
    old: dict[str, object] = {"seed": 1, "gone": 2, "epochs": 3}
    new: dict[str, object] = {"seed": 1, "new": {"a": 1}, "epochs": 4}
    assert config_differences(old, new) == ["gone: was 2, is None", "new: was None, is {'a': 1}"]
    damaged: dict[Any, object] = {"seed": 1, None: 2, "new": {1: 1, "a": 1}}
    assert config_differences(damaged, new) == ["None: was 2, is None", "new.1: was 1, is None"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "is not a mapping"),
        ("a: [1", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        ("a: " + "1" * 5000, "is not YAML"),
        ("a: " + "[" * 5000, "is not YAML"),
        ("a: &a [1, 1]\nb: [*a, *a]", "has YAML aliases"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_broken_config_is_refused(tmp_path: Path, text: str | bytes | None, message: str) -> None:
    path = tmp_path / "config.yaml"
    if isinstance(text, bytes):
        path.write_bytes(text)
    elif text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_yaml(path)


def test_a_full_disk_is_told(config: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", no_space)
    with pytest.raises(DataError, match=r"config\.yaml .*No space left.*--out"):
        open_run_folder(config)
    assert list(config.out.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(config: PretrainConfig, tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("")
    with pytest.raises(DataError, match=r"config\.yaml could not be written"):
        open_run_folder(changed(config, out=tmp_path / "blocked" / "run"))


def test_log_file_takes_what_is_logged_meanwhile(tmp_path: Path) -> None:
    logger = logging.getLogger("voxlift.training.test")
    with logging_to(tmp_path / "log.txt"):
        logger.info("first")
    logger.info("later")
    text = (tmp_path / "log.txt").read_text()
    assert text.endswith("INFO first\n")
    assert logging.getLogger("voxlift").handlers == []


def test_environment_names_no_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/home/someone/bin/voxlift", "pretrain", "--seed", "1"])
    environment = describe_environment()
    assert environment["command"] == "voxlift pretrain --seed 1"
    assert "someone" not in json.dumps(environment)


def test_log_tells_what_was_said_before_there_was_a_folder(tmp_path: Path) -> None:
    logger = logging.getLogger("voxlift.somewhere")
    with remembering_log() as said:
        logger.info("early")
    logger.info("in between")
    with logging_to(tmp_path / "log.txt", earlier=said):
        logger.info("late")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["early", "late"]
    assert logging.getLogger("voxlift").handlers == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the always full device of Linux")
def test_log_on_a_full_disk_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to(Path("/dev/full")):
        logging.getLogger("voxlift").info("a line")
    assert capsys.readouterr().err == ""


def test_a_folder_can_be_checked_without_being_touched(config: PretrainConfig) -> None:
    check_run_folder(config)
    assert not config.out.exists()
    folder = open_run_folder(config)
    refused: list[dict[str, bool]] = [{}, {"resume": True, "overwrite": True}]
    for flags in refused:
        with pytest.raises(ConfigError):
            check_run_folder(config, **flags)
    check_run_folder(config, overwrite=True)
    check_run_folder(config, resume=True)
    assert folder.config.is_file()
