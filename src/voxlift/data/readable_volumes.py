"""Volumes in a list, with or without labels: all that is needed to look at them one by one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from voxlift.data.volume import Volume
from voxlift.data.volumes import read_volume


class NamedVolume(Protocol):
    """One of the volumes, as errors and tables call it."""

    @property
    def id(self) -> str:
        """Its name, unique in its list."""


class ReadableVolumes(Protocol):
    """A list of volumes, such as `ClassificationCases` or `VolumeFiles`."""

    @property
    def cases(self) -> Sequence[NamedVolume]:
        """The volumes by name."""

    @property
    def origin(self) -> str:
        """What the list was opened from."""

    def read_volume(self, index: int) -> Volume:
        """Read one of them."""


@dataclass(frozen=True)
class VolumeFile:
    """A volume on disk; its path is its name.

    Attributes:
        path: A file, or the folder of a DICOM series.
    """

    path: Path

    @property
    def id(self) -> str:
        """The path."""
        return str(self.path)


@dataclass(frozen=True)
class VolumeFiles:
    """Volumes on disk, without labels.

    Attributes:
        cases: The files.
        origin: What the list was opened from.
    """

    cases: tuple[VolumeFile, ...] = field(repr=False)
    origin: str = "volumes"

    def read_volume(self, index: int) -> Volume:
        """Read one of them.

        Raises:
            DataError: If it cannot be read.
        """
        return read_volume(self.cases[index].path)
