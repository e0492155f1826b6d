"""Prepared volumes and masks of a data set, each read and laid out once."""

import logging
import time
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Int32, UInt8

from voxlift.core.label_scheme import IGNORED
from voxlift.core.preprocessing import Preprocessing
from voxlift.core.randomness import numpy_generator
from voxlift.core.types import Triple
from voxlift.data.array_store import ArrayStore
from voxlift.data.prepared_image import prepare_image, to_network_grid
from voxlift.data.preprocess import PreprocessingWarning, unit_complaint
from voxlift.data.segmentation_cases import SegmentationCases

_log = logging.getLogger(__name__)

_MOST_PLACES = 5000
_SECONDS_BETWEEN_REPORTS = 10.0


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """One case as the network is trained on it.

    Attributes:
        image: Scaled, on the network's grid.
        label: Class numbers, on the same grid.
        lowest: What padding of each channel has.
        places: For each class but the background that is there, some voxels of it.
    """

    image: Float32[np.ndarray, "channels depth height width"]
    label: UInt8[np.ndarray, "depth height width"]
    lowest: tuple[float, ...]
    places: dict[int, Int32[np.ndarray, "voxels 3"]]

    @property
    def size_voxels(self) -> Triple:
        """Size on the network's grid."""
        depth, height, width = self.label.shape
        return depth, height, width


class SegmentationCache:
    """Hold the prepared cases of a data set, in memory and beyond that on disk.

    Args:
        cases: The data set.
        indices: Positions of the cases that will be asked for.
        preprocessing: What is done to each.
        cache_gb: Memory that may be used, in GB; what does not fit is kept in temporary files.

    Raises:
        DataError: If a case cannot be read or breaks the contract, or the disk is full.

    Warns:
        PreprocessingWarning: Once, if the numbers of an image do not look like the unit.
    """

    def __init__(
        self,
        cases: SegmentationCases,
        indices: npt.NDArray[np.int64],
        *,
        preprocessing: Preprocessing,
        cache_gb: float = 4.0,
    ) -> None:
        self.cases = cases
        self.preprocessing = preprocessing
        self._store = ArrayStore(cache_gb)
        self._kept: dict[int, tuple[int, int, tuple[float, ...]]] = {}
        self._places: dict[int, dict[int, Int32[np.ndarray, "voxels 3"]]] = {}
        self._complained = False
        reported = time.monotonic()
        wanted = np.unique(indices).tolist()
        for count, index in enumerate(wanted, start=1):
            self._prepare(index)
            if time.monotonic() - reported > _SECONDS_BETWEEN_REPORTS:
                reported = time.monotonic()
                _log.info("prepared %d of %d cases", count, len(wanted))
        if self._store.num_on_disk:
            _log.info(
                "%d of %d prepared volumes and masks do not fit into the cache of %g GB and are "
                "read from temporary files; more memory is allowed with --cache-gb",
                self._store.num_on_disk,
                len(self._store),
                cache_gb,
            )

    def read(self, index: int) -> PreparedCase:
        """Return a prepared case; not to be written to."""
        image, label, lowest = self._kept[index]
        return PreparedCase(
            self._store.read(image), self._store.read(label), lowest, self._places[index]
        )

    def _prepare(self, index: int) -> None:
        channels = self.cases.read_image(index)
        name = f"{self.cases.origin}: case {self.cases.cases[index].id}"
        self._complain(channels[0].array, name)
        label = self.cases.read_label(index, like=channels[0])
        prepared = prepare_image(channels, self.preprocessing, name=name)
        label = to_network_grid(label, self.preprocessing, method="label")
        self._kept[index] = (
            self._store.add(prepared.read_all()),
            self._store.add(np.ascontiguousarray(label.array)),
            prepared.lowest,
        )
        self._places[index] = find_places(label.array, seed=index)

    def _complain(self, array: npt.NDArray[np.generic], name: str) -> None:
        complaint = unit_complaint(array, self.preprocessing, name=name)
        if complaint is not None and not self._complained:
            self._complained = True
            warnings.warn(
                f"{complaint} Further volumes of this data set are not reported.",
                PreprocessingWarning,
                stacklevel=4,
            )


def find_places(
    label: UInt8[np.ndarray, "depth height width"], *, seed: int
) -> dict[int, Int32[np.ndarray, "voxels 3"]]:
    """Find voxels of each class but the background, at most some thousands of each."""
    flat = label.ravel()
    inside = np.flatnonzero((flat != 0) & (flat != IGNORED))
    classes = flat[inside]
    places = {}
    for number in np.unique(classes).tolist():
        found = inside[classes == number]
        if len(found) > _MOST_PLACES:
            generator = numpy_generator(seed, "places", number)
            found = generator.choice(found, _MOST_PLACES, replace=False)
        places[number] = np.stack(np.unravel_index(found, label.shape), 1).astype(np.int32)
    return places
