"""Ask a saved classifier about volumes on disk, one after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from voxlift.core.errors import DataError, VoxliftError
from voxlift.core.files import write_text
from voxlift.data.preprocess import preprocess
from voxlift.data.volumes import is_volume_path, read_volume
from voxlift.inference.classification import call_class, predictions_csv
from voxlift.inference.saved_model import SavedModel


@dataclass(frozen=True)
class Prediction:
    """What the model said about one input.

    Args:
        path: The input.
        probabilities: One a class, in the order of the class names.
        class_name: The class that is called.
        probability: Its probability, which a threshold may call though another's is higher.
    """

    path: Path
    probabilities: tuple[float, ...]
    class_name: str
    probability: float


@dataclass(frozen=True)
class Predictions:
    """What became of all inputs.

    Args:
        predictions: Answers, in the order of the inputs.
        failures: Inputs that could not be read, with the reason.
        table: The CSV that was written.
    """

    predictions: tuple[Prediction, ...]
    failures: dict[Path, str]
    table: Path


def find_volumes(inputs: Sequence[str | Path]) -> list[Path]:
    """List the volumes that files, DICOM series folders and folders of volumes stand for.

    Raises:
        DataError: If there is no input, one does not exist, or a folder holds no volume.
    """
    if not inputs:
        raise DataError("There is nothing to predict. Give files or folders of volumes.")
    found: list[Path] = []
    for each in inputs:
        path = Path(each)
        if not path.exists():
            raise DataError(f"There is no {path}. Give files or folders that exist.")
        if is_volume_path(path) or path.is_file():
            found.append(path)
            continue
        inside = [child for child in sorted(path.rglob("*")) if is_volume_path(child)]
        if not inside:
            raise DataError(
                f"{path} holds no volume: no .nii, .nii.gz, .nrrd, .mha, .mhd, .npy or .npz file "
                "and no DICOM series."
            )
        found += inside
    return list(dict.fromkeys(found))


def predict_volumes(
    model: SavedModel,
    inputs: Sequence[str | Path],
    *,
    out: Path,
    on_case: Callable[[Path, int, int], None] | None = None,
) -> Predictions:
    """Classify volumes; a broken one is listed and does not stop the others.

    Args:
        model: The classifier.
        inputs: Files, DICOM series folders, or folders of them.
        out: Folder for `predictions.csv`.
        on_case: Called with each input when it is done, the number of those done, and of all.

    Raises:
        DataError: If an input does not exist, no volume is found, or `predictions.csv` exists.
    """
    table = out / "predictions.csv"
    if table.exists():
        raise DataError(f"{table} exists already. Choose another folder with --out.")
    paths = find_volumes(inputs)
    answers: list[Prediction] = []
    failures: dict[Path, str] = {}
    for number, path in enumerate(paths, start=1):
        try:
            answers.append(_predict(model, path))
        except VoxliftError as error:
            failures[path] = str(error)
        if on_case is not None:
            on_case(path, number, len(paths))
    write_text(
        table,
        predictions_csv(
            [str(answer.path) for answer in answers],
            np.array([answer.probabilities for answer in answers], np.float32),
            model.class_names,
            threshold=model.head.threshold,
        ),
    )
    return Predictions(tuple(answers), failures, table)


def _predict(model: SavedModel, path: Path) -> Prediction:
    volume = read_volume(path)
    array = preprocess(volume, model.preprocessing, name=str(path))
    probabilities = model.probabilities(torch.from_numpy(array)[None])[0].numpy()
    called = call_class(probabilities, model.head.threshold)
    return Prediction(
        path,
        probabilities=tuple(float(p) for p in probabilities),
        class_name=model.class_names[called],
        probability=float(probabilities[called]),
    )
