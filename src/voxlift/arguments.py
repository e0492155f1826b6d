"""What each command takes: one dataclass a command; its docstring is the help text."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from voxlift.config import DetectConfig, FinetuneConfig, PretrainConfig, SegmentConfig
from voxlift.embedding import FeatureOptions
from voxlift.evaluation import Split
from voxlift.prediction import DetectionOutput, SegmentationOutput
from voxlift.probing import ProbeOptions

Flag = tyro.conf.FlagCreatePairsOff[bool]
Model = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
Device = Literal["auto", "cuda", "mps", "cpu"]
Command = TypeVar("Command")

STYLE = (tyro.conf.OmitArgPrefixes,)


@dataclass
class Flags:
    """Flags that steer a command, not the run.

    Args:
        resume: Go on with the run in the run folder; refused if its config differs.
        overwrite: Replace the run in the run folder.
        debug: Show tracebacks of errors.
    """

    resume: Flag = False
    overwrite: Flag = False
    debug: Flag = False


@dataclass
class PretrainCommand:
    """Pre-train a 3D backbone on labelled photographs, lifted to thin volumes.

    These are the options of classes; --task detect, for boxes, has others.
    --recipe NAME starts from a recipe, --config FILE from the config.yaml of a run; the other
    options change one setting each, and are shown with the value that they have now.

    Args:
        run: The run.
        flags: What to do about a run that is there already.
    """

    run: PretrainConfig
    flags: Flags = field(default_factory=Flags)


@dataclass
class FinetuneCommand:
    """Fine-tune a backbone on labelled volumes and judge it on the test cases.

    These are the options of --task classify; --task segment and --task detect have others.
    --recipe NAME starts from a recipe, --config FILE from the config.yaml of a run; the other
    options change one setting each, and are shown with the value that they have now.

    Args:
        run: The run.
        flags: What to do about a run that is there already.
    """

    run: FinetuneConfig
    flags: Flags = field(default_factory=Flags)


@dataclass
class SegmentCommand:
    """Fine-tune a backbone on volumes with masks and judge it on the test cases.

    These are the options of --task segment; --task classify and --task detect have others.
    --recipe NAME starts from a recipe, --config FILE from the config.yaml of a run; the other
    options change one setting each, and are shown with the value that they have now.

    Args:
        run: The run.
        flags: What to do about a run that is there already.
    """

    run: SegmentConfig
    flags: Flags = field(default_factory=Flags)


@dataclass
class DetectCommand:
    """Train a detector on images with boxes and judge it on the test images.

    These are the options of --task detect, for boxes in photographs (pretrain) and lesions in key
    slices of CT (finetune).
    --recipe NAME starts from a recipe, --config FILE from the config.yaml of a run; the other
    options change one setting each, and are shown with the value that they have now.

    Args:
        run: The run.
        flags: What to do about a run that is there already.
    """

    run: DetectConfig
    flags: Flags = field(default_factory=Flags)


@dataclass
class EvaluateCommand:
    """Judge a saved model on labelled data: metrics with intervals, predictions, figures.

    Args:
        model: A weight file, a run folder, or a bundled start.
        data: Data of the kind that the model was trained on.
        out: Folder for the report.
        split: Cases to judge; `all` for data that the model has never seen.
        images: Of a detector: folder of the images, where it is not beside the annotations.
        compare: Of a detector: folders of evaluations or runs on the same images, whose FROC curves
            are drawn over this one's.
        matching: Of a detector: how the overlap that makes a hit is measured; None takes the way of
            its run.
        mirror: Of a segmenter: average over mirrored windows, as predict can.
        largest_component: Of a segmenter: keep only the largest connected piece of each structure.
        batch_size: Samples in a batch; None takes what suits the task.
        device: Where the network runs; auto takes the fastest there is.
        skip_bad: List unreadable files and go on without them.
        debug: Show tracebacks of errors.
    """

    model: Model
    data: str
    out: Path = Path("runs/evaluation")
    split: Split = "test"
    images: Path | None = None
    compare: tuple[Path, ...] = ()
    matching: Literal["iou", "iobb"] | None = None
    mirror: Flag = False
    largest_component: Flag = False
    batch_size: int | None = None
    device: Device = "auto"
    skip_bad: Flag = False
    debug: Flag = False


@dataclass
class PredictCommand:
    """Let a saved model answer about volumes: classes, masks, or candidates for lesions.

    A classifier writes predictions.csv. A segmenter writes a mask on the grid of each input
    (NAME.seg.nii.gz), a picture (NAME.png), and volumes.csv. A detector writes the candidates of
    each input (NAME.candidates.json), a picture (NAME.candidates.png), and candidates.csv.
    A broken volume is listed and does not stop the others; the exit code then is 1.

    Args:
        model: A weight file or a run folder (one with folds averages them).
        inputs: NIfTI, NRRD, MHA, npy or npz files, DICOM series folders, or folders of them.
        out: Folder for the answers.
        device: Where the network runs; auto takes the fastest there is.
        resume: Pass over inputs whose outputs are all there (masks and candidates).
        overwrite: Replace outputs that are there (masks and candidates).
        series_uid: SeriesInstanceUID to read from DICOM folders that hold several series.
        segmentation: Of a segmenter.
        detection: Of a detector.
        debug: Show tracebacks of errors.
    """

    model: Model
    inputs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="INPUT ...")]
    out: Path = Path("runs/prediction")
    device: Device = "auto"
    resume: Flag = False
    overwrite: Flag = False
    series_uid: str | None = None
    segmentation: SegmentationOutput = field(default_factory=SegmentationOutput)
    detection: DetectionOutput = field(default_factory=DetectionOutput)
    debug: Flag = False


@dataclass
class InspectCommand:
    """Say what a weight file holds; without a file, list the starts and the formats.

    With --into it also says whether a network could take the weights, tensor by tensor where not;
    the exit code then is 1 if it could not.

    Args:
        file: A start by any of its names: bundled, a file of any known format, hf://org/name ...
        into: A backbone by name, or a model by its file, to try the weights on.
        width: Channels of the first stage of the backbone named by --into; None takes the file's.
        stem: Edge of its stem kernel in voxels; None takes the file's.
        norm: Its norm; None takes the file's.
        in_channels: Channels of its input.
        num_slices: Slices that it turns into planes, as mp3d18 and its kin do.
        geometry: Its strides by name; None takes the file's.
        debug: Show tracebacks of errors.
    """

    file: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[FILE]")] = None
    into: str | None = None
    width: int | None = None
    stem: Literal[3, 5, 7] | None = None
    norm: Literal["batch", "group"] | None = None
    in_channels: int = 1
    num_slices: int | None = None
    geometry: str | None = None
    debug: Flag = False


@dataclass
class ConvertCommand:
    """Convert weights: foreign files to Voxlift's, 2D networks to 3D ones, Voxlift's to others.

    A checkpoint of a run (runs/x/checkpoints/last.ckpt) becomes a model.

    The target follows from the ending of --out: .safetensors (Voxlift), .pth (plain torch
    dictionary), .onnx, .pt2 (torch.export); --to names layouts of other projects. Exports of whole
    networks are run and compared before the file gets its name.

    Args:
        source: A start by any of its names. FORMAT:SOURCE declares a format; i3d:SOURCE,
            i3d-center:SOURCE, acs:SOURCE and 2.5d:SOURCE make a 3D network of a 2D one.
        out: The file to write.
        to: Layout to write; None follows from the ending of --out.
        geometry: Strides by name; None keeps the source's.
        in_channels: Channels of the input; None keeps the source's.
        channels: How several input channels become one: sum keeps the response to grey input,
            mean is the paper's.
        size_voxels: Size that .onnx and .pt2 are made for (depth, height, width); None takes the
            model's own.
        half: Store kernels and matrices as float16 (.safetensors only).
        allow_code: Run the code that a pickled file holds. Only for files that you trust as you
            trust a program.
        overwrite: Replace a file that is there.
        debug: Show tracebacks of errors.
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    out: Path
    to: Literal["voxlift", "torch", "medicalnet", "monai", "onnx", "torch-export"] | None = None
    geometry: str | None = None
    in_channels: int | None = None
    channels: Literal["sum", "mean"] = "sum"
    size_voxels: tuple[int, int, int] | None = None
    half: Flag = False
    allow_code: Flag = False
    overwrite: Flag = False
    debug: Flag = False


@dataclass
class PushCommand:
    """Publish a weight file on the Hugging Face hub, with a model card, under your own account.

    The token is that of `hf auth login`, or of the environment variable HF_TOKEN.

    Args:
        model: A weight file that Voxlift wrote, or a run folder.
        repository: Such as yourname/lung-nodules.
        private: Make a new repository private.
        overwrite: Replace weights and card that are in the repository.
        debug: Show tracebacks of errors.
    """

    model: Model
    repository: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ORG/NAME")]
    private: Flag = False
    overwrite: Flag = False
    debug: Flag = False


@dataclass
class EmbedCommand:
    """Write the features that a start has of volumes, for uses of your own.

    Args:
        weights: scratch, a start by any of its names, or a run folder.
        inputs: Volumes without labels: files, DICOM series folders, or folders of them.
        data: Labelled volumes instead (see finetune --data); their labels are written as well.
        out: An .npz or .parquet file (the latter needs voxlift[parquet]).
        features: How features are computed.
        overwrite: Replace the file.
        debug: Show tracebacks of errors.
    """

    weights: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="START")]
    inputs: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[INPUT ...]")
    ] = ()
    data: str | None = None
    out: Path = Path("runs/features.npz")
    features: FeatureOptions = field(default_factory=FeatureOptions)
    overwrite: Flag = False
    debug: Flag = False


@dataclass
class ProbeCommand:
    """Judge starts by simple classifiers on their features: often the better tool for few labels.

    For each start a linear probe and nearest neighbours learn from the training cases and are
    judged on the test cases, by the splits of finetune with the same seed, with intervals over
    patients.

    Args:
        data: Labelled volumes (see finetune --data).
        weights: The starts; scratch, a network of random weights, is the control.
        out: Folder for table, predictions and figure.
        options: How starts are probed.
        overwrite: Replace the results in the folder.
        debug: Show tracebacks of errors.
    """

    data: str
    weights: tuple[str, ...] = ("scratch", "tiny", "tiny-axes")
    out: Path = Path("runs/probe")
    options: ProbeOptions = field(default_factory=ProbeOptions)
    overwrite: Flag = False
    debug: Flag = False


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
    overwrite: Flag = False
    debug: Flag = False


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
    debug: Flag = False


def parse_command(
    command: type[Command], name: str, argv: Sequence[str], default: Any = None
) -> Command:
    """Make the dataclass of a command from its arguments; exits on --help and on what is wrong."""
    parsed: Command = tyro.cli(
        command,
        prog=f"voxlift {name}",
        args=list(argv),
        default=default,
        config=STYLE,
    )
    return parsed
