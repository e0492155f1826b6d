"""Look for lesions in volumes on disk, one after the other, and write what was found in each."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from voxlift.core.errors import ConfigError, VoxliftError
from voxlift.core.extras import require_extra
from voxlift.core.files import check_writable
from voxlift.data.orientation import to_canonical
from voxlift.inference.candidate_files import (
    TABLE_NAME,
    CandidateFile,
    CandidateTable,
    ModelIdentity,
    Thresholds,
    describe_candidates,
)
from voxlift.inference.candidate_places import place_candidates
from voxlift.inference.candidates import IOU_THRESHOLD, MAX_GAP_MM, merge_slices
from voxlift.inference.context_windows import detect_slices, without_slivers
from voxlift.inference.detection import lend_threshold, the_detector
from voxlift.inference.detection_outputs import DetectedCase, DetectionOutputs
from voxlift.inference.dicom_sr import (
    make_dicom_sr,
)
from voxlift.inference.saved_model import SavedModel
from voxlift.inference.segmentation_inputs import SegmentationInput, find_segmentation_inputs

logger = logging.getLogger(__name__)

SCAN_CHANNEL = ("scan",)


class CandidateOptions(BaseModel):
    """How a detector is applied to a volume, and what counts as a candidate.

    Args:
        fast_context: Run the backbone once over the whole volume instead of once for each key
            slice: 1.4 times as fast or more, and not quite the same (see the documentation).
        score_threshold: Boxes with a lower score are left out, 0 to 1; None takes the model's.
        merge_iou: Least overlap, 0 to 1, of boxes in neighbouring slices that go together.
        max_gap_mm: Farthest that two such slices may lie apart with none in between.
        min_slices: Fewest slices of a candidate.
        max_candidates: Most candidates of a volume.
        slices_at_once: Key slices that the network sees at once; more are faster on a GPU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fast_context: bool = False
    score_threshold: float | None = Field(default=None, ge=0, le=1)
    merge_iou: float = Field(default=IOU_THRESHOLD, gt=0, le=1)
    max_gap_mm: float = Field(default=MAX_GAP_MM, ge=0)
    min_slices: PositiveInt = 1
    max_candidates: PositiveInt = 100
    slices_at_once: PositiveInt = 2


@dataclass(frozen=True)
class DetectedFile:
    """What became of one input.

    Args:
        path: The input.
        content: What was found, as it is written.
        resumed: Whether an earlier run had finished it.
    """

    path: Path
    content: CandidateFile
    resumed: bool = False


@dataclass(frozen=True)
class DetectedFiles:
    """What became of all inputs.

    Args:
        files: Those that were looked at, in the order of the inputs.
        failures: Inputs that could not be, with the reason.
        table: The CSV that was written.
    """

    files: tuple[DetectedFile, ...]
    failures: dict[Path, str]
    table: Path


def detect_files(
    model: SavedModel,
    inputs: Sequence[str | Path],
    *,
    identity: ModelIdentity,
    out: Path,
    options: CandidateOptions | None = None,
    dicom_sr: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    series_uid: str | None = None,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    on_case: Callable[[Path, int, int], None] | None = None,
    on_slice: Callable[[int, int], None] | None = None,
) -> DetectedFiles:
    """Look for lesions in volumes; a broken one is listed and does not stop the others.

    For each input this writes `NAME.candidates.json`, a picture of the surest candidates
    `NAME.candidates.png`, and rows of `candidates.csv`, which is written anew after each case.

    Args:
        model: A detector.
        inputs: Files, DICOM series folders, or folders of them; see `find_segmentation_inputs`.
        identity: Which model it is, for the files.
        out: Folder for the outputs.
        options: How the model is applied.
        dicom_sr: Write `NAME.sr.dcm` too for DICOM inputs.
        resume: Pass over inputs whose candidates are there.
        overwrite: Replace outputs that are there; those of an input that fails are removed.
        series_uid: Which series to read from DICOM folders that hold several.
        autocast: Makes the context in which the network is run, such as one of mixed precision.
        on_case: Called with each input when it is done, the number of those done, and of all.
        on_slice: Called after each batch of key slices with how many are done, and of how many.

    Raises:
        ConfigError: If the model is no detector of slices, options exclude each other, or a library
            that they need is missing.
        DataError: If an input does not exist, outputs exist already or cannot be written, or those
            that are there are of another input of the same name, or are to be kept and were found
            by another model or threshold.
    """
    options = options or CandidateOptions()
    _check_model(model)
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other; give one of them.")
    cases = find_segmentation_inputs(inputs, num_channels=1, out=out)
    outputs = DetectionOutputs(out, dicom_sr)
    if dicom_sr:
        _check_dicom(cases)
    thresholds = _thresholds(model, options)
    earlier = _earlier(
        cases, outputs, identity=identity, thresholds=thresholds, resume=resume, overwrite=overwrite
    )
    table = _open_table(cases, outputs, earlier, identity=identity, thresholds=thresholds)
    files: list[DetectedFile] = []
    failures: dict[Path, str] = {}
    for number, case in enumerate(cases, start=1):
        content = earlier.get(case)
        if content is not None and all(path.is_file() for path in outputs.paths(case)):
            # A run that was stopped between the two has the candidates, but not their rows.
            if table.rows.get(case.path.resolve()) is None:
                table.add(case.path, content.candidates)
            files.append(DetectedFile(case.path, content, resumed=True))
        else:
            try:
                answer = _look(
                    model,
                    case,
                    identity=identity,
                    options=options,
                    thresholds=thresholds,
                    dicom_sr=outputs.has_report(case),
                    series_uid=series_uid,
                    autocast=autocast,
                    on_slice=on_slice,
                )
            except VoxliftError as error:
                reason = str(error)
                named = str(case.path) in reason
                failures[case.path] = reason if named else f"{case.path}: {reason}"
                if overwrite:
                    outputs.remove(case)
                    table.write()
            else:
                # What cannot be written would fail for all cases alike, and ends the run.
                outputs.write(case, answer, is_ct=model.preprocessing.unit == "HU")
                table.add(case.path, answer.content.candidates)
                files.append(DetectedFile(case.path, answer.content))
        if on_case is not None:
            on_case(case.path, number, len(cases))
    table.write()
    return DetectedFiles(tuple(files), failures, table.path)


def _look(
    model: SavedModel,
    case: SegmentationInput,
    *,
    identity: ModelIdentity,
    options: CandidateOptions,
    thresholds: Thresholds,
    dicom_sr: bool,
    series_uid: str | None,
    autocast: Callable[[], AbstractContextManager[object]],
    on_slice: Callable[[int, int], None] | None,
) -> DetectedCase:
    """Read a volume and look for candidates in it."""
    settings = model.detection
    volume = case.read(SCAN_CHANNEL, series_uid=series_uid)[0]
    canonical = to_canonical(volume)
    with lend_threshold(the_detector(model), thresholds.score):
        found = detect_slices(
            model,
            canonical,
            fast_context=options.fast_context,
            batch_size=options.slices_at_once,
            autocast=autocast,
            on_slice=on_slice,
            name=str(case.path),
        )
    all_merged = merge_slices(
        [without_slivers(each) for each in found],
        spacing_mm=canonical.spacing_mm,
        iou_threshold=options.merge_iou,
        max_gap_mm=options.max_gap_mm,
        min_slices=options.min_slices,
    )
    merged = all_merged[: options.max_candidates]
    if len(merged) < len(all_merged):
        logger.warning(
            "%s: the surest %d of %d candidates are kept; --max-candidates changes how many.",
            case.path,
            len(merged),
            len(all_merged),
        )
    placed = place_candidates(merged, volume=volume, class_names=settings.class_names)
    content = describe_candidates(
        placed,
        input_path=case.path,
        volume=volume,
        model=identity,
        class_names=settings.class_names,
        thresholds=thresholds,
        num_found=len(all_merged),
    )
    report = None
    if dicom_sr:
        report = make_dicom_sr(
            placed, volume=volume, folder=case.path, model=identity, series_uid=series_uid
        )
    return DetectedCase(content, volume, merged, report)


def _check_model(model: SavedModel) -> None:
    """Refuse models that every input would fail with.

    Raises:
        ConfigError: If it is no single detector, or one of photographs.
    """
    the_detector(model)
    if model.detection.slice_interval_mm is None:
        raise ConfigError(
            "The model finds boxes in photographs, and scans are no photographs. Fine-tune it on "
            "CT first: voxlift finetune --task detect --weights MODEL --data ..."
        )


def _thresholds(model: SavedModel, options: CandidateOptions) -> Thresholds:
    """Settle what decides on boxes and candidates."""
    detector = the_detector(model)
    asked = options.score_threshold
    return Thresholds(
        score=detector.score_threshold if asked is None else asked,
        nms_iou=model.detection.detector.nms_threshold,
        max_boxes=detector.max_boxes,
        merge_iou=options.merge_iou,
        max_gap_mm=options.max_gap_mm,
        min_slices=options.min_slices,
        max_candidates=options.max_candidates,
        fast_context=options.fast_context,
    )


def _earlier(
    cases: Sequence[SegmentationInput],
    outputs: DetectionOutputs,
    *,
    identity: ModelIdentity,
    thresholds: Thresholds,
    resume: bool,
    overwrite: bool,
) -> dict[SegmentationInput, CandidateFile]:
    """Read what is to be gone on with; refuse to lose what is there, and bad places to write."""
    outputs.check_names(cases)
    found = {}
    if resume:
        read = (outputs.read(case, model=identity, thresholds=thresholds) for case in cases)
        found = {case: content for case, content in zip(cases, read, strict=True) if content}
    elif overwrite:
        outputs.check_replaced(cases)
    else:
        outputs.check_free(cases)
    check_writable(outputs.folder)
    return found


def _open_table(
    cases: Sequence[SegmentationInput],
    outputs: DetectionOutputs,
    earlier: Mapping[SegmentationInput, CandidateFile],
    *,
    identity: ModelIdentity,
    thresholds: Thresholds,
) -> CandidateTable:
    """Start a table, or go on with that of an earlier run if it fits this one."""
    path = outputs.folder / TABLE_NAME
    if not path.exists():
        return CandidateTable(path)
    table = CandidateTable.read(path)
    outputs.check_others(cases, model=identity, thresholds=thresholds)
    for case in cases:
        # Rows of what is to be found anew may be of another model.
        if case not in earlier:
            table.remove(case.path)
    return table


def _check_dicom(cases: Sequence[SegmentationInput]) -> None:
    if not any(case.path.is_dir() for case in cases):
        raise ConfigError(
            "A DICOM SR object refers to the slices of a DICOM series, but no input is one. Give "
            "folders of DICOM series, or leave --dicom-sr out."
        )
    require_extra("dicom", "DICOM SR objects")
