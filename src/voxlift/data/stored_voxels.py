"""The voxels of a volume, in the file and at the place that its header states.

They are read by NumPy alone, each file once and to its end: what a header states is a claim, and
libraries in other languages crash, hang or fill up with zeros on some that cannot be.
"""

import gzip
import math
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase, BufferedReader
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from voxlift.data.volume_integrity import check_count, check_size, damaged

Packing = Literal["none", "gzip", "zlib", "text"]

_BLOCK_BYTES = 2**20
# What may stand behind the voxels of a compressed file; more is read for nothing.
_MAX_BEHIND_BYTES = 2**26


@dataclass(frozen=True, eq=False)
class StoredVoxels:
    """Where the voxels of a volume are, and as what.

    Attributes:
        path: What errors call the volume.
        file: Holds the voxels: the same file, or one beside it.
        shape: Number of voxels along each axis, the one that runs fastest in the file last.
        dtype: Type and byte order.
        packing: How they are compressed; `text` is numbers in decimals, with blanks between them.
        start: Where in the file they begin.
        skipped: Bytes to be skipped behind that, once it is decompressed.

    Raises:
        DataError: If the shape is none, or larger than that of any scan.
    """

    path: Path
    file: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    packing: Packing = "none"
    start: int = 0
    skipped: int = 0

    def __post_init__(self) -> None:
        check_size(self.path, self.shape)

    @property
    def num_bytes(self) -> int:
        """How many bytes they take, decompressed."""
        return math.prod(self.shape) * self.dtype.itemsize

    def check(self) -> None:
        """Check that all voxels are there and whole, in little memory.

        Raises:
            DataError: If the file is cut or damaged.
            OSError: If it cannot be read.
        """
        if self.packing == "text":
            self.read()
        elif self.packing == "none":
            found = self.file.stat().st_size - self.start - self.skipped
            check_count(self.path, found=found, promised=self.num_bytes)
        else:
            found = sum(len(block) for block in self._unpacked()) - self.skipped
            check_count(self.path, found=found, promised=self.num_bytes)

    def read(self) -> npt.NDArray[Any]:
        """Read the voxels, in the byte order of this machine.

        Raises:
            DataError: If the file is cut or damaged.
            OSError: If it cannot be read.
        """
        if self.packing == "text":
            return self._read_text().reshape(self.shape)
        if self.packing == "none":
            # Compared before memory is taken for what the header claims.
            self.check()
            voxels = np.fromfile(
                self.file, self.dtype, math.prod(self.shape), offset=self.start + self.skipped
            )
        else:
            voxels = np.frombuffer(self._unpack(), self.dtype)
        return voxels.reshape(self.shape).astype(self.dtype.newbyteorder("="), copy=False)

    def _unpack(self) -> bytearray:
        voxels = bytearray()
        at, end = 0, self.skipped + self.num_bytes
        for block in self._unpacked():
            voxels += block[max(0, self.skipped - at) : max(0, end - at)]
            at += len(block)
        check_count(self.path, found=len(voxels), promised=self.num_bytes)
        return voxels

    def _unpacked(self) -> Iterator[bytes]:
        """Decompress to the end, so that the check sum is compared."""
        unpack = gunzip if self.packing == "gzip" else inflate
        left = self.skipped + self.num_bytes + _MAX_BEHIND_BYTES
        with self._open(self.start) as file:
            for block in unpack(self.path, file):
                left -= len(block)
                if left < 0:
                    raise damaged(
                        self.path, f"it holds far more than the {self.num_bytes} bytes promised"
                    )
                yield block

    def _open(self, start: int) -> BufferedReader:
        """Open the file at a place that a header states."""
        if start > self.file.stat().st_size:
            raise damaged(self.path, f"its voxels begin at byte {start}, behind the end")
        file = self.file.open("rb")
        file.seek(start)
        return file

    def _read_text(self) -> npt.NDArray[Any]:
        with self._open(self.start + self.skipped) as file:
            text = file.read().decode("ascii", errors="replace")
        count = math.prod(self.shape)
        # A digit and a blank, at least; the last one may be without.
        check_count(self.path, found=len(text) + 1, promised=2 * count)
        wide = {"f": np.float64, "u": np.uint64}.get(self.dtype.kind, np.int64)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                # Given the count, it would fill up with anything what is missing.
                numbers = np.fromstring(text, wide, sep=" ")[:count]
        except (ValueError, DeprecationWarning) as error:
            raise damaged(self.path, "its voxels are not numbers") from error
        if len(numbers) < count:
            raise damaged(self.path, f"it holds {len(numbers)} of the {count} numbers promised")
        if self.dtype.kind != "f":
            bounds = np.iinfo(self.dtype)
            if numbers.min() < bounds.min or numbers.max() > bounds.max:
                raise damaged(self.path, f"its voxels do not fit into {self.dtype.name}")
        return numbers.astype(self.dtype.newbyteorder("="))


def gunzip(path: Path, file: BufferedIOBase) -> Iterator[bytes]:
    """Decompress from where a file stands to its end, block by block.

    Raises:
        DataError: If the stream is cut, or the check sums at its end are others.
    """
    try:
        with gzip.GzipFile(fileobj=file) as stream:
            while block := stream.read(_BLOCK_BYTES):
                yield block
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise damaged(path, f"it cannot be decompressed to its end ({error})") from error


def inflate(path: Path, file: BufferedIOBase) -> Iterator[bytes]:
    """Decompress, without the header of gzip, from where a file stands to the end of the stream.

    Raises:
        DataError: If the stream is cut, or the check sum at its end is another.
    """
    decompressor = zlib.decompressobj()
    try:
        while not decompressor.eof and (packed := file.read(_BLOCK_BYTES)):
            while packed and not decompressor.eof:
                yield decompressor.decompress(packed, _BLOCK_BYTES)
                packed = decompressor.unconsumed_tail
    except zlib.error as error:
        raise damaged(path, f"it cannot be decompressed to its end ({error})") from error
    if not decompressor.eof:
        raise damaged(path, "its compressed data end too early")
