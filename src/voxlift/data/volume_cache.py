"""Preprocessed volumes kept in memory, each read once as far as the memory allows."""

import logging
import warnings

import numpy as np
import numpy.typing as npt
import torch

from voxlift.core.errors import ConfigError
from voxlift.core.preprocessing import Preprocessing
from voxlift.data.classification_cases import ClassificationCases
from voxlift.data.preprocess import (
    NetworkInput,
    PreprocessingWarning,
    preprocess_quietly,
    unit_complaint,
)
from voxlift.data.volume import Volume

_log = logging.getLogger(__name__)

_CHUNK_FLOATS = 2**24


class VolumeCache:
    """Hold the preprocessed volumes of some cases.

    They are read when the cache is made. Those that do not fit are read again whenever they are
    asked for. The memory is shared with worker processes.

    Args:
        cases: The data set.
        indices: Positions of the cases that will be asked for.
        preprocessing: What is done to each.
        margin_voxels: Voxels kept beyond the crop on each side, for random shifts.
        cache_gb: Memory that may be used, in GB.

    Raises:
        DataError: If a volume breaks the contract.

    Warns:
        PreprocessingWarning: Once, if the numbers of a volume do not look like the unit.
    """

    def __init__(
        self,
        cases: ClassificationCases,
        indices: npt.NDArray[np.int64],
        *,
        preprocessing: Preprocessing,
        margin_voxels: int = 0,
        cache_gb: float = 4.0,
    ) -> None:
        if cache_gb < 0:
            raise ConfigError(f"cache_gb is {cache_gb}; give 0 or more.")
        self.cases = cases
        self.preprocessing = preprocessing
        self.margin_voxels = margin_voxels
        self._chunks: list[torch.Tensor] = []
        self._used = 0
        self._places: dict[int, tuple[int, int, tuple[int, ...]]] = {}
        wanted = np.unique(indices).tolist()
        free = int(cache_gb * 1e9 / 4)
        complained = False
        for index in wanted:
            volume = cases.read_volume(index)
            array = self._preprocess(index, volume)
            complaint = unit_complaint(volume, preprocessing, name=self._name(index))
            if complaint is not None and not complained:
                complained = True
                warnings.warn(
                    f"{complaint} Further volumes of this data set are not reported.",
                    PreprocessingWarning,
                    stacklevel=2,
                )
            if array.size > free:
                break
            free -= array.size
            self._keep(index, array)
        if len(self._places) < len(wanted):
            _log.info(
                "%d of %d volumes fit into the cache of %g GB; the others are read every epoch",
                len(self._places),
                len(wanted),
                cache_gb,
            )

    def __contains__(self, index: int) -> bool:
        return index in self._places

    def read(self, index: int) -> NetworkInput:
        """Return a preprocessed volume with its margin; not to be written to.

        Raises:
            DataError: If it is not in the cache and cannot be read any more.
        """
        if index not in self._places:
            return self._preprocess(index, self.cases.read_volume(index))
        chunk, start, shape = self._places[index]
        flat = self._chunks[chunk].numpy()[start : start + int(np.prod(shape))]
        return flat.reshape(shape)

    def _preprocess(self, index: int, volume: Volume) -> NetworkInput:
        return preprocess_quietly(
            volume,
            self.preprocessing,
            name=self._name(index),
            margin_voxels=self.margin_voxels,
        )

    def _name(self, index: int) -> str:
        return f"{self.cases.origin}: {self.cases.cases[index].id}"

    def _keep(self, index: int, array: NetworkInput) -> None:
        # A few large tensors, for each one that workers share costs a file handle.
        if not self._chunks or self._used + array.size > len(self._chunks[-1]):
            self._chunks.append(torch.empty(max(_CHUNK_FLOATS, array.size)))
            self._used = 0
        end = self._used + array.size
        self._chunks[-1].numpy()[self._used : end] = array.ravel()
        self._places[index] = (len(self._chunks) - 1, self._used, array.shape)
        self._used = end
