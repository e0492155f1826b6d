"""Arrays kept in memory up to a limit, and on disk beyond, shared among processes."""

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from voxlift.core.errors import ConfigError, DataError

_CHUNK_BYTES = 2**26


class ArrayStore:
    """Hold arrays that are read often.

    Worker processes share the memory and the files. The files go with the store.

    Args:
        memory_gb: Memory that may be used, in GB.
    """

    def __init__(self, memory_gb: float) -> None:
        if memory_gb < 0:
            raise ConfigError(f"cache_gb is {memory_gb}; give 0 or more.")
        self._free = int(memory_gb * 1e9)
        self._chunks: list[torch.Tensor] = []
        self._used = 0
        self._places: list[tuple[int, int, npt.DTypeLike, tuple[int, ...]] | Path] = []
        self._folder: Path | None = None

    def __len__(self) -> int:
        """Count the arrays."""
        return len(self._places)

    @property
    def num_on_disk(self) -> int:
        """How many arrays did not fit into the memory."""
        return sum(isinstance(place, Path) for place in self._places)

    def add(self, array: npt.NDArray[Any]) -> int:
        """Keep a copy of an array and return its number.

        Raises:
            DataError: If it has to go to disk, and there is no space.
        """
        if array.nbytes <= self._free:
            self._free -= array.nbytes
            self._places.append(self._keep(array))
        else:
            self._places.append(self._write(array))
        return len(self._places) - 1

    def read(self, number: int) -> npt.NDArray[Any]:
        """Return an array, of which parts may be read at little cost; not to be written to."""
        place = self._places[number]
        if isinstance(place, Path):
            mapped: npt.NDArray[Any] = np.load(place, mmap_mode="r")
            return mapped
        chunk, start, dtype, shape = place
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self._chunks[chunk].numpy()[start : start + size].view(dtype).reshape(shape)

    def _keep(self, array: npt.NDArray[Any]) -> tuple[int, int, npt.DTypeLike, tuple[int, ...]]:
        # A few large tensors, for each one that workers share costs a file handle.
        size = -(-array.nbytes // 16) * 16
        if not self._chunks or self._used + size > len(self._chunks[-1]):
            self._chunks.append(torch.empty(max(_CHUNK_BYTES, size), dtype=torch.uint8))
            self._used = 0
        start = self._used
        place = self._chunks[-1].numpy()[start : start + array.nbytes]
        place.view(array.dtype).reshape(array.shape)[...] = array
        self._used += size
        return len(self._chunks) - 1, start, array.dtype, array.shape

    def _write(self, array: npt.NDArray[Any]) -> Path:
        try:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="voxlift-cache-"))
                weakref.finalize(self, _remove, self._folder, made_by=os.getpid())
            path = self._folder / f"{len(self._places)}.npy"
            np.save(path, array)
        except OSError as error:
            raise DataError(
                f"The cache of prepared volumes cannot be written to {tempfile.gettempdir()}: "
                f"{error.strerror or error}. Free some space there, name another folder by the "
                "environment variable TMPDIR, or allow more memory with --cache-gb."
            ) from error
        return path


def _remove(folder: Path, *, made_by: int) -> None:
    """Remove the files, but not for a worker, which holds a copy of the store only."""
    if os.getpid() == made_by:
        shutil.rmtree(folder, ignore_errors=True)
