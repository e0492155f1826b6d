"""`volumes.csv`: how many millilitres of each structure were found in each input."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from voxlift.core.errors import DataError
from voxlift.core.files import write_text

_UNIT = "_ml"


@dataclass(frozen=True)
class VolumeRow:
    """What was found in one input.

    Attributes:
        input: The input, as it was given.
        mask: File name of the mask.
        volumes_ml: Volume of each structure.
    """

    input: str
    mask: str
    volumes_ml: dict[str, float]


@dataclass
class VolumeTable:
    """Rows by their inputs; written whole each time, so that it is never half a table.

    Attributes:
        path: The file.
        structures: The columns.
        rows: By the resolved path of the input.
    """

    path: Path
    structures: tuple[str, ...]
    rows: dict[Path, VolumeRow] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "VolumeTable":
        """Read a table that an earlier run wrote.

        Raises:
            DataError: If it is no such table.
        """
        try:
            header, *lines = csv.reader(io.StringIO(path.read_text(encoding="utf-8")), strict=True)
            table = cls(path, _structures(header))
            for given, mask, *volumes in lines:
                pairs = zip(table.structures, volumes, strict=True)
                row = VolumeRow(given, mask, {name: float(ml) for name, ml in pairs})
                table.rows[Path(given).resolve()] = row
        except (ValueError, csv.Error) as error:
            raise DataError(
                f"{path} is not a table of volumes as segmentation writes it: {error}. Move it "
                "away, or choose another folder with --out."
            ) from error
        return table

    def row(self, path: Path) -> VolumeRow | None:
        """Find the row of an input."""
        return self.rows.get(path.resolve())

    def add(self, path: Path, *, mask: str, volumes_ml: Mapping[str, float]) -> None:
        """Add or replace the row of an input, and write the table."""
        self.rows[path.resolve()] = VolumeRow(str(path), mask, dict(volumes_ml))
        self.write()

    def write(self) -> None:
        """Write the table.

        Raises:
            DataError: If it cannot be written.
        """
        write_text(self.path, _format(self.structures, list(self.rows.values())))


def _structures(header: Sequence[str]) -> tuple[str, ...]:
    if header[:2] != ["input", "mask"] or not all(name.endswith(_UNIT) for name in header[2:]):
        raise ValueError(f"its columns are {', '.join(header)}")
    return tuple(name.removesuffix(_UNIT) for name in header[2:])


def _format(structures: Sequence[str], rows: Sequence[VolumeRow]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["input", "mask", *(f"{name}{_UNIT}" for name in structures)])
    for row in rows:
        volumes = [f"{row.volumes_ml[name]:.4f}" for name in structures]
        writer.writerow([row.input, row.mask, *volumes])
    return text.getvalue()
