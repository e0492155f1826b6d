"""Segment files on disk one after the other, and leave masks in the geometry of each."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from voxlift.core.errors import ConfigError, DataError, VoxliftError
from voxlift.core.extras import require_extra
from voxlift.core.files import check_writable
from voxlift.inference.dicom_seg import make_dicom_seg
from voxlift.inference.saved_model import SavedModel
from voxlift.inference.segmentation import SegmentOptions, segment, window_settings
from voxlift.inference.segmentation_inputs import SegmentationInput, find_segmentation_inputs
from voxlift.inference.segmentation_outputs import SegmentationOutputs, SegmentedCase
from voxlift.inference.volume_table import VolumeTable

TABLE_NAME = "volumes.csv"


@dataclass(frozen=True)
class SegmentedFile:
    """What became of one input.

    Args:
        path: The input.
        mask: Its mask.
        volumes_ml: Volume of each structure.
        resumed: Whether an earlier run had finished it.
    """

    path: Path
    mask: Path
    volumes_ml: dict[str, float]
    resumed: bool = False


@dataclass(frozen=True)
class SegmentedFiles:
    """What became of all inputs.

    Args:
        files: Those that were segmented, in the order of the inputs.
        failures: Inputs that could not be segmented, with the reason.
        table: The CSV that was written.
    """

    files: tuple[SegmentedFile, ...]
    failures: dict[Path, str]
    table: Path


def segment_files(
    model: SavedModel,
    inputs: Sequence[str | Path],
    *,
    out: Path,
    options: SegmentOptions | None = None,
    probabilities: bool = False,
    dicom_seg: bool = False,
    own_format: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    series_uid: str | None = None,
    scratch: Path | None = None,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    on_case: Callable[[Path, int, int], None] | None = None,
    on_window: Callable[[int, int], None] | None = None,
) -> SegmentedFiles:
    """Segment volumes; a broken one is listed and does not stop the others.

    For each input this writes `NAME.seg.nii.gz` on its own grid, a picture `NAME.png`, and a row of
    `volumes.csv`, which is written anew after each case.

    Args:
        model: A segmenter.
        inputs: Files, DICOM series folders, or folders of them; see `find_segmentation_inputs`.
        out: Folder for the outputs.
        options: How the model is applied.
        probabilities: Write `NAME.prob.nii.gz` too, or `NAME.STRUCTURE.prob.nii.gz` for each of
            several structures: 32-bit floats, which `largest_component` leaves alone.
        dicom_seg: Write `NAME.seg.dcm` too for DICOM inputs.
        own_format: Write masks in the format of their input instead of `.nii.gz`.
        resume: Pass over inputs whose outputs are all there.
        overwrite: Replace outputs that are there.
        series_uid: Which series to read from DICOM folders that hold several.
        scratch: Folder for temporary files; by default that of the system.
        autocast: Makes the context in which the network is run, such as one of mixed precision.
        on_case: Called with each input when it is done, the number of those done, and of all.
        on_window: Called after each window of a case with how many are done and how many it has.

    Raises:
        ConfigError: If the model is no segmenter, options exclude each other, or a library that
            they need is missing.
        DataError: If an input does not exist, outputs exist already or cannot be written.
    """
    options = options or SegmentOptions()
    window_settings(model, options)
    _check_options(resume=resume, overwrite=overwrite, scratch=scratch)
    settings = model.segmentation
    cases = find_segmentation_inputs(inputs, num_channels=len(settings.channel_names), out=out)
    outputs = SegmentationOutputs(out, settings.labels, probabilities, dicom_seg, own_format)
    outputs.check_names(cases)
    if dicom_seg:
        _check_dicom(cases)
    check_writable(out)
    table = _open_table(cases, outputs, resume=resume, overwrite=overwrite)

    def ask(case: SegmentationInput) -> SegmentedCase:
        channels = case.read(settings.channel_names, series_uid=series_uid)
        found = segment(
            model,
            channels,
            options=options,
            probabilities=probabilities,
            scratch=scratch,
            autocast=autocast,
            on_window=on_window,
            name=str(case.path),
        )
        seg = None
        if outputs.has_dicom(case):
            seg = make_dicom_seg(
                found.structures, found.mask, folder=case.path, series_uid=series_uid
            )
        return SegmentedCase(channels[0], found, seg)

    files: list[SegmentedFile] = []
    failures: dict[Path, str] = {}
    for number, case in enumerate(cases, start=1):
        row = table.row(case.path)
        if resume and row and all(path.is_file() for path in outputs.paths(case)):
            files.append(SegmentedFile(case.path, outputs.mask(case), row.volumes_ml, resumed=True))
        else:
            try:
                answer = ask(case)
            except VoxliftError as error:
                reason = str(error)
                named = str(case.path) in reason
                failures[case.path] = reason if named else f"{case.path}: {reason}"
            else:
                # What cannot be written would fail for all cases alike, and ends the run.
                outputs.write(case, answer, window=model.preprocessing.window)
                mask, volumes_ml = outputs.mask(case), answer.found.volumes_ml
                # The next case shall not be read beside this one.
                del answer
                table.add(case.path, mask=mask.name, volumes_ml=volumes_ml)
                files.append(SegmentedFile(case.path, mask, volumes_ml))
        if on_case is not None:
            on_case(case.path, number, len(cases))
    table.write()
    return SegmentedFiles(tuple(files), failures, table.path)


def _check_options(*, resume: bool, overwrite: bool, scratch: Path | None) -> None:
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other; give one of them.")
    if scratch is not None and not scratch.is_dir():
        raise ConfigError(f"There is no folder {scratch}. Make it, or leave --scratch out.")


def _check_dicom(cases: Sequence[SegmentationInput]) -> None:
    if not any(case.path.is_dir() for case in cases):
        raise ConfigError(
            "A DICOM SEG object refers to the slices of a DICOM series, but no input is one. Give "
            "folders of DICOM series, or leave --dicom-seg out."
        )
    require_extra("dicom", "DICOM SEG objects")


def _open_table(
    cases: Sequence[SegmentationInput],
    outputs: SegmentationOutputs,
    *,
    resume: bool,
    overwrite: bool,
) -> VolumeTable:
    """Start a table, or go on with that of an earlier run; refuse to lose what stands there."""
    path = outputs.folder / TABLE_NAME
    structures = outputs.labels.structures
    if not (resume or overwrite):
        there = [each for case in cases for each in outputs.paths(case) if each.exists()]
        there = [path, *there] if path.exists() else there
        if there:
            more = f" and {len(there) - 3} more" if len(there) > 3 else ""
            raise DataError(
                f"These are there already: {', '.join(map(str, there[:3]))}{more}. Go on with an "
                "unfinished run by --resume, replace them by --overwrite, or choose another folder "
                "with --out."
            )
    if not path.exists():
        return VolumeTable(path, structures)
    table = VolumeTable.read(path)
    if table.structures != structures:
        raise DataError(
            f"{path} is of another model: it has the structures {', '.join(table.structures)}, "
            f"this one {', '.join(structures)}. Choose another folder with --out."
        )
    for case in cases:
        mask = outputs.mask(case).name
        for resolved, row in table.rows.items():
            if row.mask == mask and resolved != case.path.resolve():
                raise DataError(
                    f"{outputs.folder / mask} is the mask of {row.input}, and would be replaced by "
                    f"that of {case.path}. Choose another folder with --out."
                )
    return table
