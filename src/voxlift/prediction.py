"""Let a trained model answer about new volumes."""

from collections.abc import Callable, Sequence
from pathlib import Path

from voxlift.config import MachineConfig
from voxlift.core.errors import ConfigError, DataError
from voxlift.inference.candidate_files import ModelIdentity
from voxlift.inference.detection_files import CandidateOptions, DetectedFiles, detect_files
from voxlift.inference.saved_model import find_models
from voxlift.inference.segmentation import SegmentOptions
from voxlift.inference.segmentation_files import SegmentedFiles, segment_files
from voxlift.inference.volumes import Predictions, predict_volumes
from voxlift.training.answering import load_answering
from voxlift.training.hardware import autocast, choose_device
from voxlift.weights.source import read_source


class SegmentationOutput(SegmentOptions):
    """How a segmenter is applied to files, and what it writes for each.

    Args:
        probabilities: Write the probability of each structure as well (`NAME.prob.nii.gz`).
        dicom_seg: Write a DICOM SEG object as well for DICOM inputs (needs `voxlift[dicom]`).
        own_format: Write masks in the format of their input instead of .nii.gz.
        scratch: Folder for temporary files; None takes that of the system.
    """

    probabilities: bool = False
    dicom_seg: bool = False
    own_format: bool = False
    scratch: Path | None = None

    @property
    def options(self) -> SegmentOptions:
        """How the model is applied."""
        return SegmentOptions.model_validate(
            self.model_dump(include=set(SegmentOptions.model_fields))
        )


class DetectionOutput(CandidateOptions):
    """How a detector is applied to files, and what it writes for each.

    Args:
        dicom_sr: Write a DICOM structured report as well for DICOM inputs (needs `voxlift[dicom]`).
    """

    dicom_sr: bool = False

    @property
    def options(self) -> CandidateOptions:
        """How the model is applied."""
        return CandidateOptions.model_validate(
            self.model_dump(include=set(CandidateOptions.model_fields))
        )


def predict(
    model: str | Path,
    inputs: Sequence[str | Path],
    *,
    out: str | Path = "runs/prediction",
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    series_uid: str | None = None,
    segmentation: SegmentationOutput | None = None,
    detection: DetectionOutput | None = None,
    on_case: Callable[[Path, int, int], None] | None = None,
    on_window: Callable[[int, int], None] | None = None,
) -> Predictions | SegmentedFiles | DetectedFiles:
    """Let a saved model answer about volumes on disk.

    A classifier's answers go to `predictions.csv`; a segmenter's to a mask on each input's own grid
    (`NAME.seg.nii.gz`), a picture (`NAME.png`) and `volumes.csv`; a detector's to the candidates of
    each input (`NAME.candidates.json`), a picture and `candidates.csv`. A volume that cannot be
    read is listed among the failures and does not stop the others.

    Args:
        model: A weight file, or a run folder (that of a run with folds averages them).
        inputs: NIfTI, NRRD, MHA, npy or npz files, DICOM series folders, or folders of them.
        out: Folder for the answers.
        device: `auto`, `cuda`, `mps` or `cpu`.
        resume: Of segmenters and detectors: pass over inputs whose outputs are all there.
        overwrite: Of the same: replace outputs that are there.
        series_uid: Of the same: which series to read from DICOM folders that hold several.
        segmentation: How a segmenter is applied and what it writes.
        detection: How a detector is applied and what it writes.
        on_case: Called with each input when it is done, the number of those done, and of all.
        on_window: Called after each window of a segmenter, or key slices of a detector, with how
            many are done, and of how many.

    Raises:
        ConfigError: If options do not fit the model.
        DataError: If an input does not exist, or outputs do.
        WeightsError: If the model cannot be trusted or is not one of volumes.
    """
    if not inputs:
        raise DataError("There is nothing to predict. Give files or folders of volumes.")
    machine = MachineConfig.model_validate({"device": device})
    where = choose_device(machine)
    saved = load_answering(model, device=where)
    segmenting, detecting = segmentation or SegmentationOutput(), detection or DetectionOutput()
    _check_options(
        str(model),
        saved.head.task,
        segment=segmenting != SegmentationOutput(),
        detect=detecting != DetectionOutput(),
        files=resume or overwrite or series_uid is not None,
    )
    if saved.head.task == "segment":
        return segment_files(
            saved,
            inputs,
            out=Path(out),
            options=segmenting.options,
            probabilities=segmenting.probabilities,
            dicom_seg=segmenting.dicom_seg,
            own_format=segmenting.own_format,
            resume=resume,
            overwrite=overwrite,
            series_uid=series_uid,
            scratch=segmenting.scratch,
            autocast=lambda: autocast(machine, where),
            on_case=on_case,
            on_window=on_window,
        )
    if saved.head.task == "detect":
        return detect_files(
            saved,
            inputs,
            identity=ModelIdentity.of_file(read_source(find_models(model)[0]).path),
            out=Path(out),
            options=detecting.options,
            dicom_sr=detecting.dicom_sr,
            resume=resume,
            overwrite=overwrite,
            series_uid=series_uid,
            autocast=lambda: autocast(machine, where),
            on_case=on_case,
            on_slice=on_window,
        )
    if saved.head.task != "classify":
        raise ConfigError(
            f"{model} was trained on photographs ({saved.head.task}); fine-tune it on volumes "
            f"first: voxlift finetune --weights {model} --data ..."
        )
    return predict_volumes(saved, inputs, out=Path(out), on_case=on_case)


def _check_options(model: str, task: str, *, segment: bool, detect: bool, files: bool) -> None:
    """Refuse options that would be passed over.

    Raises:
        ConfigError: If some are of another task than the model's.
    """
    foreign = {
        "segmentation": segment and task != "segment",
        "detection": detect and task != "detect",
        "writing files (resume, overwrite, series_uid)": files
        and task not in ("segment", "detect"),
    }
    for what, given in foreign.items():
        if given:
            raise ConfigError(
                f"{model} was trained to {task}; options of {what} do not go with it."
            )
