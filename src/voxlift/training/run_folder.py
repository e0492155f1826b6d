"""The run folder: what a run leaves behind, and the guard against losing an earlier one."""

import json
import logging
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

import torch
import yaml

from voxlift.config import RunConfig
from voxlift.core.errors import ConfigError
from voxlift.core.files import is_left_behind, lock, write_text

FREE_TO_CHANGE = (
    "epochs",
    "out",
    "machine.device",
    "machine.workers",
    "machine.cache_gb",
    "machine.compile",
)
"""Settings that a resumed run may change: how long it goes on, and where it is computed."""

OF_A_RUN = {"seed", "network", "machine", "optimization"}
"""Settings by which the `config.yaml` of a run is told from that of another program."""


class RunFolder:
    """Names of the files in a run folder.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.last_checkpoint = self.checkpoints / "last.ckpt"
        self.best_checkpoint = self.checkpoints / "best.ckpt"
        self.model = path / "model.safetensors"
        self.figures = path / "figures"
        self.log = path / "log.txt"
        self.environment = path / "environment.json"


def open_run_folder(
    config: RunConfig, *, resume: bool = False, overwrite: bool = False
) -> RunFolder:
    """Make the run folder, or check that a run can be resumed in it.

    What writing processes that were killed have left half-written is removed.

    Args:
        config: Config of the run; it is written to the folder.
        resume: Go on with the run that the folder holds; begin it if there is none yet.
        overwrite: Delete what the folder holds.

    Raises:
        ConfigError: If the folder is not empty and neither flag is given, if it holds no run, if
            the config differs from the one that the run was started with, or if another process is
            training in it.
        DataError: If the folder cannot be written to.
    """
    check_run_folder(config, resume=resume, overwrite=overwrite)
    folder = RunFolder(config.out)
    if overwrite and folder.path.exists():
        _remove_run(folder)
    for path in filter(is_left_behind, folder.path.rglob(".*")):
        path.unlink(missing_ok=True)
    write_text(folder.config, to_yaml(config))
    write_text(folder.environment, json.dumps(describe_environment(), indent=2) + "\n")
    folder.checkpoints.mkdir(exist_ok=True)
    folder.figures.mkdir(exist_ok=True)
    return folder


def check_run_folder(config: RunConfig, *, resume: bool = False, overwrite: bool = False) -> None:
    """Check, without touching anything, that `open_run_folder` would not refuse.

    Args:
        config: Config of the run.
        resume: As in `open_run_folder`.
        overwrite: As in `open_run_folder`.

    Raises:
        ConfigError: As `open_run_folder` does.
    """
    folder = RunFolder(config.out)
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other; give one of them.")
    if folder.path.exists() and not folder.path.is_dir():
        raise ConfigError(f"{folder.path} is a file; choose a folder with --out.")
    if not folder.path.exists() or all(map(is_left_behind, folder.path.iterdir())):
        return
    if not resume and not overwrite:
        raise ConfigError(
            f"The run folder {folder.path} is not empty. Go on with its run (--resume), "
            "replace it (--overwrite), or choose another folder with --out."
        )
    _check_is_run(folder)
    _check_not_running(folder)
    if resume:
        _check_same_config(folder, config)


def _check_is_run(folder: RunFolder) -> None:
    settings = load_yaml(folder.config).keys() if folder.config.is_file() else ()
    if OF_A_RUN.difference(settings):
        raise ConfigError(
            f"{folder.path} is not empty and holds no run of Voxlift, so it is neither resumed nor "
            "overwritten. Choose another folder with --out."
        )


def _check_not_running(folder: RunFolder) -> None:
    if folder.log.is_file():
        with folder.log.open("a") as file:
            if not lock(file):
                raise _another_process(folder.path)


def _another_process(path: Path) -> ConfigError:
    return ConfigError(
        f"Another process is training in {path}. Wait for its end or stop it, or choose another "
        "folder with --out."
    )


def _remove_run(folder: RunFolder) -> None:
    try:
        # The config last: if this process is killed, what is left is still known as a run.
        for path in sorted(folder.path.iterdir(), key=lambda path: path == folder.config):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    except OSError as error:
        raise ConfigError(
            f"The run in {folder.path} cannot be deleted: {error.strerror or error}. "
            "Delete it by hand, or choose another folder with --out."
        ) from error


def _check_same_config(folder: RunFolder, config: RunConfig) -> None:
    changes = config_differences(load_yaml(folder.config), config.model_dump(mode="json"))
    if changes:
        raise ConfigError(
            f"The run in {folder.path} was started with another config, so it cannot be resumed:\n"
            + "\n".join(f"  {change}" for change in changes)
            + "\nOnly epochs, device and workers may change. Use the old values, or start a new "
            "run with --out."
        )


def config_differences(
    old: dict[str, object], new: dict[str, object], prefix: str = ""
) -> list[str]:
    """List the settings that differ, but for those a resumed run may change."""
    changes = []
    # A damaged file may have keys of any type.
    for key in sorted(old.keys() | new.keys(), key=str):
        before, after = old.get(key), new.get(key)
        if before == after or f"{prefix}{key}" in FREE_TO_CHANGE:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            changes += config_differences(before, after, f"{prefix}{key}.")
        else:
            changes.append(f"{prefix}{key}: was {before!r}, is {after!r}")
    return changes


def to_yaml(config: RunConfig) -> str:
    """Write a config out so that `--config FILE` runs it again."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load_yaml(path: Path) -> dict[str, object]:
    """Read a config file.

    Raises:
        ConfigError: If it is missing or not a YAML mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            # A short text of aliases can stand for more than any memory holds.
            raise ConfigError(f"The config {path} has YAML aliases (*name). Write them out.")
        loaded = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"The config {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"The config {path} is not YAML: {error}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"The config {path} is not a mapping of settings; found {loaded!r:.80}.")
    return loaded


def describe_environment() -> dict[str, object]:
    """Machine, versions and command of this process; no user or host names."""
    packages = ("voxlift", "torch", "torchvision", "lightning", "monai", "numpy", "SimpleITK")
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor_name(),
        "cores": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": versions,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def processor_name() -> str:
    """Name of the CPU as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class _Remembering(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def remembering_log() -> Iterator[Sequence[logging.LogRecord]]:
    """Remember what Voxlift logs before there is a run folder, for `logging_to`."""
    handler = _Remembering()
    with _handling(handler):
        yield handler.records


class _LogFile(logging.FileHandler):
    """Be silent on a full disk: what matters more than the log fails there with a clear error."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - of logging.Handler
        """Lose the line."""

    def close(self) -> None:
        """Lose what is not written yet."""
        with suppress(OSError):
            super().close()


@contextmanager
def logging_to(path: Path, *, earlier: Sequence[logging.LogRecord] = ()) -> Iterator[None]:
    """Send what Voxlift logs to a file as well, for as long as the block lasts.

    The file is locked meanwhile: no other process can train in its folder.

    Args:
        path: The file; it is appended to.
        earlier: What was logged before the file could be written.

    Raises:
        ConfigError: If another process has locked the file.
    """
    handler = _LogFile(path, encoding="utf-8")
    if handler.stream and not lock(handler.stream):
        handler.close()
        raise _another_process(path.parent)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for record in earlier:
        handler.handle(record)
    with _handling(handler):
        yield


@contextmanager
def _handling(handler: logging.Handler) -> Iterator[None]:
    logger = logging.getLogger("voxlift")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()
