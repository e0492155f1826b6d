"""Volumes as a network is fed them: in their order, unchanged, for as many passes as one likes."""

import logging
import warnings
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32
from torch import Tensor

from voxlift.core.errors import ConfigError, DataError
from voxlift.core.preprocessing import Preprocessing
from voxlift.data.preprocess import (
    NetworkInput,
    PreprocessingWarning,
    preprocess_quietly,
    unit_complaint,
)
from voxlift.data.readable_volumes import ReadableVolumes

_log = logging.getLogger(__name__)


class PreparedVolumes:
    """Preprocess volumes once and keep them, as far as the memory allows.

    Args:
        volumes: The volumes.
        indices: Positions of those that are wanted.
        preprocessing: What is done to each.
        skip_bad: List those that cannot be read or preprocessed instead of raising.
        cache_gb: Memory that may be used, in GB; what does not fit is read anew in each pass.

    Attributes:
        indices: Positions of the volumes that are there.
        failures: Why the others are not, by their name.

    Raises:
        DataError: If a volume is bad and not to be skipped, or none is left.

    Warns:
        PreprocessingWarning: Once, if the numbers of a volume do not look like the unit.
    """

    def __init__(
        self,
        volumes: ReadableVolumes,
        indices: npt.NDArray[np.int64],
        *,
        preprocessing: Preprocessing,
        skip_bad: bool = False,
        cache_gb: float = 2.0,
    ) -> None:
        if cache_gb < 0:
            raise ConfigError(f"cache_gb is {cache_gb}; give 0 or more.")
        self._volumes = volumes
        self._preprocessing = preprocessing
        self._kept: dict[int, NetworkInput] = {}
        self._free = int(cache_gb * 1e9)
        self._complained = False
        self.failures: dict[str, str] = {}
        good = []
        for index in indices.tolist():
            try:
                self._prepare(index)
            except DataError as error:
                if not skip_bad:
                    raise
                _log.warning("skipped: %s", error)
                self.failures[volumes.cases[index].id] = str(error)
            else:
                good.append(index)
        if not good:
            raise DataError(f"{volumes.origin}: none of the {len(indices)} volumes can be used.")
        self.indices = np.array(good, np.int64)

    def __len__(self) -> int:
        """Count the volumes that are there."""
        return len(self.indices)

    def batches(self, batch_size: int) -> Iterator[Float32[Tensor, "batch channels _ _ _"]]:
        """Go through the volumes in their order, in batches of about the same size.

        Volumes of different sizes are never put into one batch.
        """
        for part in np.array_split(self.indices, -(-len(self) // batch_size)):
            waiting: list[NetworkInput] = []
            for index in part.tolist():
                volume = self._kept.get(index)
                volume = self._read(index) if volume is None else volume
                if waiting and waiting[-1].shape != volume.shape:
                    yield torch.from_numpy(np.stack(waiting))
                    waiting = []
                waiting.append(volume)
            yield torch.from_numpy(np.stack(waiting))

    def _prepare(self, index: int) -> None:
        array = self._read(index)
        if array.nbytes <= self._free:
            self._free -= array.nbytes
            self._kept[index] = array

    def _read(self, index: int) -> NetworkInput:
        name = f"{self._volumes.origin}: {self._volumes.cases[index].id}"
        volume = self._volumes.read_volume(index)
        array = preprocess_quietly(volume, self._preprocessing, name=name)
        complaint = unit_complaint(volume, self._preprocessing, name=name)
        if complaint is not None and not self._complained:
            self._complained = True
            warnings.warn(
                f"{complaint} Further volumes are not reported.",
                PreprocessingWarning,
                stacklevel=2,
            )
        return array
