"""Commands that train, judge, ask and time networks."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from voxlift.arguments import (
    BenchCommand,
    DetectCommand,
    EvaluateCommand,
    FinetuneCommand,
    PredictCommand,
    PretrainCommand,
    QuickstartCommand,
    SegmentCommand,
    parse_command,
)
from voxlift.bench import run_bench, write_bench
from voxlift.cli.console import err, out
from voxlift.config import DetectConfig, FinetuneConfig, PretrainConfig, SegmentConfig
from voxlift.core.errors import ConfigError
from voxlift.evaluation import evaluate
from voxlift.experiment import finetune, pretrain
from voxlift.inference.classification import ClassificationReport
from voxlift.inference.detection_files import DetectedFiles
from voxlift.inference.froc_comparison import COMPARISON_FIGURE
from voxlift.inference.segmentation_files import SegmentedFiles
from voxlift.prediction import predict
from voxlift.quickstart import quickstart
from voxlift.recipes.registry import finetune_recipe, pretrain_recipe
from voxlift.tables import answer_table, candidate_table, judgement_table, volume_table
from voxlift.training.run import Run
from voxlift.training.run_folder import load_yaml

Pretraining = PretrainConfig | DetectConfig
Finetuning = FinetuneConfig | SegmentConfig | DetectConfig
Config = TypeVar("Config", Pretraining, Finetuning)

PRETRAIN_FALLBACKS = {"pretrain": "photographs", "detect": "coco-small"}
FINETUNE_FALLBACKS = {"classify": "classify-few", "segment": "segment-few", "detect": "detect-few"}
"""Recipe of each task where none is named; the first task is that of a command without one."""

PRETRAIN_CONFIGS: dict[str, type[Pretraining]] = {
    "pretrain": PretrainConfig,
    "detect": DetectConfig,
}
FINETUNE_CONFIGS: dict[str, type[Finetuning]] = {
    "classify": FinetuneConfig,
    "segment": SegmentConfig,
    "detect": DetectConfig,
}


def pretrain_command(argv: Sequence[str]) -> int:
    """Pre-train a backbone on photographs."""
    default, rest = _starting_config(
        argv, _config_of(PRETRAIN_CONFIGS), pretrain_recipe, PRETRAIN_FALLBACKS
    )
    command: PretrainCommand | DetectCommand
    if isinstance(default, DetectConfig):
        command = parse_command(DetectCommand, "pretrain", rest, DetectCommand(default))
    else:
        command = parse_command(PretrainCommand, "pretrain", rest, PretrainCommand(default))
    flags = command.flags
    run = pretrain(command.run, resume=flags.resume, overwrite=flags.overwrite)
    return _show_judged(run, task=command.run.task)


def finetune_command(argv: Sequence[str]) -> int:
    """Fine-tune a backbone on volumes."""
    default, rest = _starting_config(
        argv, _config_of(FINETUNE_CONFIGS), finetune_recipe, FINETUNE_FALLBACKS
    )
    command: FinetuneCommand | SegmentCommand | DetectCommand
    if isinstance(default, SegmentConfig):
        command = parse_command(SegmentCommand, "finetune", rest, SegmentCommand(default))
    elif isinstance(default, DetectConfig):
        command = parse_command(DetectCommand, "finetune", rest, DetectCommand(default))
    else:
        command = parse_command(FinetuneCommand, "finetune", rest, FinetuneCommand(default))
    flags = command.flags
    run = finetune(command.run, resume=flags.resume, overwrite=flags.overwrite)
    return _show_judged(run, task=command.run.task)


def _show_judged(run: Run, *, task: str) -> int:
    """Show the verdict of a run, with intervals where it has any."""
    report = run.report
    if report is None:
        return _show_run(run)
    baselines = {}
    if isinstance(report, ClassificationReport):
        baselines = {name: each.auroc.value for name, each in report.baselines.items()}
    title = f"{task}, {report.split} cases"
    out.print(judgement_table(title, report.metrics.intervals(), baselines))
    _show_places(run)
    return 0


def _show_run(run: Run) -> int:
    if run.stopped_by:
        err.print(f"Interrupted. Go on with the same command and --resume ({run.folder}).")
        return 128 + run.stopped_by
    table = Table("metric", "value")
    for name, value in run.metrics.items():
        table.add_row(name, f"{value:.4f}")
    out.print(table)
    _show_places(run)
    return 0


def _show_places(run: Run) -> None:
    out.print(f"Model: {run.model_path}", f"Run folder: {run.folder}", sep="\n", soft_wrap=True)


def evaluate_command(argv: Sequence[str]) -> int:
    """Judge a saved model."""
    command = parse_command(EvaluateCommand, "evaluate", argv)
    result = evaluate(
        command.model,
        data=command.data,
        out=command.out,
        split=command.split,
        images=command.images,
        compare=command.compare,
        matching=command.matching,
        mirror=command.mirror,
        largest_component=command.largest_component,
        skip_bad=command.skip_bad,
        batch_size=command.batch_size,
        device=command.device,
    )
    title = f"{result.task}, {result.split} cases"
    out.print(judgement_table(title, result.metrics, result.baselines))
    if command.compare:
        picture = result.folder / COMPARISON_FIGURE
        out.print(f"FROC curves over each other: {picture}", soft_wrap=True)
    out.print(f"Report: {result.folder}", soft_wrap=True)
    return 0


def predict_command(argv: Sequence[str]) -> int:
    """Let a saved model answer."""
    command = parse_command(PredictCommand, "predict", argv)
    with _case_progress() as (on_case, on_window):
        result = predict(
            command.model,
            command.inputs,
            out=command.out,
            device=command.device,
            resume=command.resume,
            overwrite=command.overwrite,
            series_uid=command.series_uid,
            segmentation=command.segmentation,
            detection=command.detection,
            on_case=on_case,
            on_window=on_window,
        )
    if isinstance(result, SegmentedFiles):
        out.print(volume_table(result))
    elif isinstance(result, DetectedFiles):
        out.print(candidate_table(result))
    else:
        out.print(answer_table(result))
    out.print(f"Table: {result.table}", soft_wrap=True)
    for reason in result.failures.values():
        err.print(f"failed: {reason}", style="red", soft_wrap=True)
    return 1 if result.failures else 0


@contextmanager
def _case_progress() -> Iterator[
    tuple[Callable[[Path, int, int], None], Callable[[int, int], None]]
]:
    """Show a bar of cases and, within a case, one of windows, with the time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    ) as progress:
        cases = progress.add_task("Cases", total=None)
        windows = progress.add_task("Parts of this case", total=None, visible=False)

        def on_case(path: Path, done: int, total: int) -> None:
            del path
            progress.update(cases, completed=done, total=total)
            progress.reset(windows, visible=False)

        def on_window(done: int, total: int) -> None:
            progress.update(windows, completed=done, total=total, visible=True)

        yield on_case, on_window


def quickstart_command(argv: Sequence[str]) -> int:
    """Run the quickstart."""
    command = parse_command(QuickstartCommand, "quickstart", argv)
    for handler in logging.getLogger("voxlift").handlers:
        # A dozen runs have much to say; each says it in its own log.txt.
        handler.addFilter(lambda r: r.name == "voxlift.quickstart" or r.levelno > logging.INFO)
    result = quickstart(
        data=command.data, out=command.out, seed=command.seed, overwrite=command.overwrite
    )
    table = Table(*result.columns, title=result.title)
    for row in result.rows:
        table.add_row(*row)
    out.print(table)
    for sentence in result.sentences:
        out.print(sentence)
    out.print(f"Results and figures: {command.out}", soft_wrap=True)
    for line in result.next_commands:
        out.print(f"  {line}", soft_wrap=True, highlight=False)
    return 0


def bench_command(argv: Sequence[str]) -> int:
    """Time Voxlift against other code."""
    command = parse_command(BenchCommand, "bench", argv)
    table = Table("name", "shape", "ours", "baseline", "unit", "ratio", "against", "same function")
    rows = run_bench(only=command.only)
    for row in rows:
        table.add_row(
            row.name,
            str(row.shape),
            f"{row.ours:.4g}",
            f"{row.baseline:.4g}",
            row.unit,
            f"{row.ratio:.2f}",
            row.baseline_name,
            "yes" if row.same_function else "no",
        )
    out.print(table)
    if command.json:
        write_bench(rows, command.json)
        out.print(f"Rows: {command.json}", soft_wrap=True)
    return 0


def _explain(error: ValidationError) -> str:
    """Say which settings are wrong, one a line."""
    return "\n".join(
        f"{'.'.join(str(part) for part in each['loc']) or error.title}: {each['msg']} "
        f"(found {each['input']!r:.60})"
        for each in error.errors()
    )


def _starting_config(
    argv: Sequence[str],
    check: Callable[[dict[str, object]], Config],
    recipe: Callable[[str], Config],
    fallbacks: Mapping[str, str],
) -> tuple[Config, list[str]]:
    """Take `--config FILE` or `--recipe NAME` out of the arguments; other flags change it.

    Raises:
        ConfigError: If both are given, the task is unknown, or they are for another task.
    """
    task = _value_of(argv, "--task")
    if task not in (None, *fallbacks):
        raise ConfigError(f"Unknown task {task!r}; known are {', '.join(fallbacks)}.")
    rest = list(argv)
    file, name = (_take(rest, flag) for flag in ("--config", "--recipe"))
    if file and name:
        raise ConfigError("--config and --recipe exclude each other; give one of them.")
    if file:
        try:
            config = check(load_yaml(Path(file)))
        except ValidationError as error:
            raise ConfigError(f"{file}: {_explain(error)}") from error
    else:
        config = recipe(name or fallbacks[task or next(iter(fallbacks))])
    if task not in (None, config.task):
        given = file or f"--recipe {config.recipe}"
        raise ConfigError(f"{given} is for the task {config.task}, not {task}.")
    return config, rest


def _config_of(kinds: Mapping[str, type[Config]]) -> Callable[[dict[str, object]], Config]:
    """Make a function that checks the fields of a config by its task; the first one's without."""

    def check(fields: dict[str, object]) -> Config:
        kind = kinds.get(str(fields.get("task")), next(iter(kinds.values())))
        return kind.model_validate(fields)

    return check


def _value_of(argv: Sequence[str], flag: str) -> str | None:
    """Look at the value of a flag and leave it among the arguments."""
    return _take(list(argv), flag)


def _take(argv: list[str], flag: str) -> str | None:
    """Remove a flag and its value from the arguments."""
    for position, argument in enumerate(argv):
        if argument == flag:
            if position + 1 == len(argv):
                raise ConfigError(f"{flag} needs a value.")
            del argv[position]
            return argv.pop(position)
        if argument.startswith(f"{flag}="):
            return argv.pop(position).partition("=")[2]
    return None
