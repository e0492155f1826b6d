"""The files of candidates: `NAME.candidates.json` of each volume, and `candidates.csv` of all.

Indices count the slices, rows and columns of the array as the file stores it, from 0; see
`candidate_places`.
"""

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from voxlift.core.errors import DataError
from voxlift.core.files import write_text
from voxlift.data.volume import Volume
from voxlift.inference.candidate_places import STORED_AXES, Index, PlacedCandidate, Point

JSON_ENDING = ".candidates.json"
TABLE_NAME = "candidates.csv"
FORMAT: Literal["voxlift candidates"] = "voxlift candidates"
FORMAT_VERSION: Literal[1] = 1

COLUMNS = (
    "input",
    "rank",
    "class",
    "score",
    "num_slices",
    # The stored axis along which the slices lie that were looked at.
    "slice_axis",
    "key_slice_index",
    "first_slice_index",
    "last_slice_index",
    *(f"centre_{axis}_index" for axis in STORED_AXES),
    *(f"low_{axis}_index" for axis in STORED_AXES),
    *(f"high_{axis}_index" for axis in STORED_AXES),
    *(f"centre_{axis}_mm_lps" for axis in "xyz"),
    *(f"low_corner_{axis}_mm_lps" for axis in "xyz"),
    *(f"high_corner_{axis}_mm_lps" for axis in "xyz"),
    *(f"extent_along_{axis}s_mm" for axis in STORED_AXES),
)


class ModelIdentity(BaseModel):
    """Which model found the candidates.

    Attributes:
        name: Name of its file.
        sha256: Of its file; None if it is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str | None = None

    @classmethod
    def of_file(cls, path: str | Path) -> "ModelIdentity":
        """Name a model by its file.

        Raises:
            DataError: If the file cannot be read.
        """
        try:
            with Path(path).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(
                f"{path} could not be read: {error.strerror or error}. Check the path of the model."
            ) from error
        return cls(name=Path(path).name, sha256=digest)


class Thresholds(BaseModel):
    """What decided on boxes, and which of them went together.

    Attributes:
        score: The least score of a box.
        nms_iou: Of two boxes of a slice that overlap by more, the surer one was kept.
        max_boxes: Most boxes of a slice.
        merge_iou: The least overlap of boxes of neighbouring slices that went together.
        max_gap_mm: The greatest distance of two such slices with none in between.
        min_slices: The least number of slices of a candidate.
        max_candidates: Most candidates of a volume.
        fast_context: Whether the backbone was run once over the whole volume.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: float
    nms_iou: float
    max_boxes: int
    merge_iou: float
    max_gap_mm: float
    min_slices: int
    max_candidates: int
    fast_context: bool


class CandidateFile(BaseModel):
    """What `NAME.candidates.json` holds.

    Attributes:
        format: Says what the file is.
        format_version: Changes when a field changes its meaning.
        input: The volume, as it was given.
        model: Which model looked at it.
        class_names: What the labels mean.
        thresholds: What decided on boxes and candidates.
        index_order: The order of indices, sizes and spacings.
        size_voxels: Of the stored array.
        spacing_mm: Distance between voxels.
        origin_mm: Centre of the first voxel, (x, y, z) in LPS.
        direction: Rows of a matrix whose columns are the unit vectors, in LPS, along which the
            column, the row and the slice index grow, as SimpleITK has it.
        num_found: How many candidates there were, before all but the surest were left out.
        candidates: The surest first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["voxlift candidates"] = FORMAT
    format_version: Literal[1] = FORMAT_VERSION
    input: str
    model: ModelIdentity
    class_names: tuple[str, ...]
    thresholds: Thresholds
    index_order: tuple[Literal["slice"], Literal["row"], Literal["column"]] = (
        "slice",
        "row",
        "column",
    )
    size_voxels: tuple[int, int, int]
    spacing_mm: Index
    origin_mm: Point
    direction: tuple[Point, Point, Point]
    num_found: int
    candidates: tuple[PlacedCandidate, ...]


def describe_candidates(
    candidates: Sequence[PlacedCandidate],
    *,
    input_path: str | Path,
    volume: Volume,
    model: ModelIdentity,
    class_names: Sequence[str],
    thresholds: Thresholds,
    num_found: int | None = None,
) -> CandidateFile:
    """Put together what the JSON file of a volume holds.

    Args:
        candidates: From `place_candidates`.
        input_path: The volume's file or folder.
        volume: As it was read from there.
        model: Which model found them.
        class_names: What its labels mean.
        thresholds: What decided on them.
        num_found: How many there were, if these are not all.
    """
    first, second, third = (_point(row.tolist()) for row in volume.direction)
    return CandidateFile(
        input=str(input_path),
        model=model,
        class_names=tuple(class_names),
        thresholds=thresholds,
        size_voxels=volume.size_voxels,
        spacing_mm=volume.spacing_mm,
        origin_mm=volume.origin_mm,
        direction=(first, second, third),
        num_found=len(candidates) if num_found is None else num_found,
        candidates=tuple(candidates),
    )


def write_candidates(path: str | Path, content: CandidateFile) -> None:
    """Write the JSON file of a volume in one step.

    Raises:
        DataError: If it cannot be written.
    """
    write_text(path, content.model_dump_json(indent=1) + "\n")


def read_candidates(path: str | Path) -> CandidateFile:
    """Read the JSON file of a volume.

    Raises:
        DataError: If it cannot be read, or is none of this format and version.
    """
    try:
        return CandidateFile.model_validate_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} could not be read: {error.strerror or error}.") from error
    except (ValidationError, UnicodeDecodeError) as error:
        reason = error.errors()[0] if isinstance(error, ValidationError) else None
        where = ".".join(map(str, reason["loc"])) if reason else ""
        raise DataError(
            f"{path} holds no candidates in the format '{FORMAT}', version {FORMAT_VERSION}: "
            f"{where + ': ' if where else ''}{reason['msg'] if reason else error}. Detect them "
            "again."
        ) from error


@dataclass
class CandidateTable:
    """Rows by their inputs; written whole each time, so that it is never half a table.

    An input without candidates has no row.

    Attributes:
        path: The file.
        rows: By the resolved path of the input; in each row the entries of `COLUMNS`.
    """

    path: Path
    rows: dict[Path, list[list[str]]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "CandidateTable":
        """Read a table that an earlier run wrote.

        Raises:
            DataError: If it is no such table.
        """
        table = cls(path)
        try:
            lines = csv.reader(io.StringIO(path.read_text(encoding="utf-8")), strict=True)
            for line in _checked(list(lines)):
                table.rows.setdefault(Path(line[0]).resolve(), []).append(line)
        except (OSError, ValueError, csv.Error) as error:
            raise DataError(
                f"{path} is not a table of candidates as detection writes it: {error}. Move it "
                "away, or choose another folder with --out."
            ) from error
        return table

    def add(self, path: Path, candidates: Sequence[PlacedCandidate]) -> None:
        """Add or replace the rows of an input, and write the table."""
        self.rows[path.resolve()] = [_row(str(path), each) for each in candidates]
        self.write()

    def remove(self, path: Path) -> None:
        """Forget the rows of an input; `write` makes it so in the file."""
        self.rows.pop(path.resolve(), None)

    def write(self) -> None:
        """Write the table.

        Raises:
            DataError: If it cannot be written.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for rows in self.rows.values():
            writer.writerows(rows)
        write_text(self.path, text.getvalue())


def _checked(lines: Sequence[list[str]]) -> Sequence[list[str]]:
    """Check the header of a table, and return the rows below it."""
    if not lines or tuple(lines[0]) != COLUMNS:
        raise ValueError("it has other columns")
    lengths = {len(line) for line in lines}
    if lengths != {len(COLUMNS)}:
        raise ValueError(f"a row has {min(lengths)} entries instead of {len(COLUMNS)}")
    return lines[1:]


def _row(given: str, candidate: PlacedCandidate) -> list[str]:
    indices = (
        candidate.key_index,
        candidate.first_index,
        candidate.last_index,
        *candidate.centre_index,
        *candidate.low_index,
        *candidate.high_index,
    )
    places_mm = (
        *candidate.centre_mm,
        *candidate.corners_mm[0],
        *candidate.corners_mm[-1],
        *candidate.extent_mm,
    )
    return [
        given,
        str(candidate.rank),
        candidate.class_name,
        f"{candidate.score:.6f}",
        str(len(candidate.slices)),
        candidate.slice_axis,
        *(f"{value:.4f}".rstrip("0").rstrip(".") for value in indices),
        *(f"{value:.3f}" for value in places_mm),
    ]


def _point(values: Sequence[float]) -> Point:
    x, y, z = values
    return x, y, z
