"""What each command takes: one dataclass a command; its docstring is the help text."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from voxlift.config import FinetuneConfig, PretrainConfig
from voxlift.evaluation import Split


@dataclass
class Flags:
    """Flags that steer a command, not the run.

    Args:
        resume: Go on with the run in the run folder; refused if its config differs.
        overwrite: Replace the run in the run folder.
        debug: Show tracebacks of errors.
    """

    resume: bool = False
    overwrite: bool = False
    debug: bool = False


@dataclass
class PretrainCommand:
    """Pre-train a 3D backbone on labelled photographs, lifted to thin volumes.

    Args:
        run: The run.
        flags: What to do about a run that is there already.
    """

    run: PretrainConfig
    flags: Flags = field(default_factory=Flags)


@dataclass
class FinetuneCommand:
    """Fine-tune a backbone on labelled volumes and judge it on the test cases.

    Args:
        run: The run.
        flags: What to do about a run that is there already.
    """

    run: FinetuneConfig
    flags: Flags = field(default_factory=Flags)


@dataclass
class EvaluateCommand:
    """Judge a saved model on labelled data: metrics with intervals, predictions, figures.

    Args:
        model: A weight file, a run folder, or a bundled start.
        data: Data of the kind that the model was trained on.
        out: Folder for the report.
        split: Cases to judge; `all` for data that the model has never seen.
        batch_size: Samples in a batch.
        device: auto, cuda, mps or cpu.
        skip_bad: List unreadable files and go on without them.
        debug: Show tracebacks of errors.
    """

    model: tyro.conf.Positional[str]
    data: str
    out: Path = Path("runs/evaluation")
    split: Split = "test"
    batch_size: int = 32
    device: str = "auto"
    skip_bad: bool = False
    debug: bool = False


@dataclass
class PredictCommand:
    """Classify volumes with a saved model; writes predictions.csv.

    A broken volume is listed and does not stop the others; the exit code then is 1.

    Args:
        model: A weight file or a run folder (one with folds averages them).
        inputs: NIfTI, NRRD, MHA, npy or npz files, DICOM series folders, or folders of them.
        out: Folder for the table.
        device: auto, cuda, mps or cpu.
        debug: Show tracebacks of errors.
    """

    model: tyro.conf.Positional[str]
    inputs: tyro.conf.Positional[tuple[str, ...]]
    out: Path = Path("runs/prediction")
    device: str = "auto"
    debug: bool = False


@dataclass
class InspectCommand:
    """Say what a weight file holds; without a file, list the bundled starts.

    Args:
        file: A weight file or a bundled start.
        debug: Show tracebacks of errors.
    """

    file: tyro.conf.Positional[str | None] = None
    debug: bool = False


@dataclass
class QuickstartCommand:
    """Show in minutes, offline, what pre-training on photographs gains on few labelled volumes.

    Args:
        data: Labelled volumes of your own (see finetune --data); None simulates CT nodules.
        out: Run folder.
        seed: First of the seeds.
        overwrite: Replace the results in the folder.
        debug: Show tracebacks of errors.
    """

    data: str | None = None
    out: Path = Path("runs/quickstart")
    seed: int = 0
    overwrite: bool = False
    debug: bool = False


@dataclass
class BenchCommand:
    """Time training, forward pass and loading side by side with plain and foreign code.

    A ratio above 1 always means that Voxlift is faster.

    Args:
        only: Names of the benches to run; all of the default set if none is given.
        json: File to write the rows to.
        debug: Show tracebacks of errors.
    """

    only: tuple[str, ...] = ()
    json: Path | None = None
    debug: bool = False
