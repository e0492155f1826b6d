"""The zip archives of `torch.save`: what is in them, and whether it is whole.

Nothing is extracted: entries are looked at where they lie, and `torch.save` packs none of them.
"""

import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from voxlift.core.errors import WeightsError
from voxlift.weights.consent import CodeNeededError

MAX_DIRECTORY_BYTES = 16 * 1024**2
"""More than the list of any network's tensors; a longer one would fill the memory."""

MAX_PICKLE_BYTES = 64 * 1024**2
"""More than the names of any network's tensors and what stands beside them."""

END = b"PK\x05\x06"
END_64 = b"PK\x06\x06"
END_BYTES = 22
LOCAL_BYTES = 30
CHUNK_BYTES = 1024**2
WEIGHT_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".model", ".safetensors", ".tar")


class Archive:
    """An archive that was checked.

    Args:
        stream: The open file.
        path: Its name, for errors.

    Raises:
        WeightsError: If it is cut off, damaged, packed, made by something other than `torch.save`,
            or pretends to hold more than it does.
        CodeNeededError: If it is a TorchScript program.
    """

    def __init__(self, stream: BinaryIO, *, path: Path) -> None:
        self.stream = stream
        self.path = path
        self.num_bytes = stream.seek(0, 2)
        self._check_directory()
        try:
            with zipfile.ZipFile(stream) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise self._damaged(str(error)) from error
        self.entries = {entry.filename: entry for entry in entries}
        if len({name.casefold() for name in self.entries}) < len(entries):
            raise self._damaged("two entries of its archive have the same name")
        self.root = entries[0].filename.split("/")[0] if entries else ""
        self._check_kind()
        self._check_sizes()
        for entry in entries:
            self._check_sum(entry)

    def pickle(self) -> bytes:
        """Read the pickle that lists the tensors."""
        entry = self.entries[f"{self.root}/data.pkl"]
        self.stream.seek(self._start(entry))
        return self.stream.read(entry.file_size)

    def storages(self) -> dict[str, int]:
        """List the blocks of numbers and how many bytes each has."""
        prefix = f"{self.root}/data/"
        return {
            name.removeprefix(prefix): entry.file_size
            for name, entry in self.entries.items()
            if name.startswith(prefix)
        }

    def _check_directory(self) -> None:
        """Check the length of the list of entries before it is read."""
        self.stream.seek(max(0, self.num_bytes - 2**16 - 200))
        tail = self.stream.read()
        at = len(tail) - END_BYTES
        if at < 0 or not (tail[at:].startswith(END) and tail.endswith(b"\0\0")):
            at = tail.rfind(END)
        if at < 0:
            raise self._damaged("the end of its archive is missing")
        num_bytes = int.from_bytes(tail[at + 12 : at + 16], "little")
        at_64 = tail.rfind(END_64, 0, at)
        if at_64 >= 0:
            num_bytes = max(
                num_bytes if num_bytes < 2**32 - 1 else 0,
                int.from_bytes(tail[at_64 + 40 : at_64 + 48], "little"),
            )
        if num_bytes > MAX_DIRECTORY_BYTES:
            raise WeightsError(
                f"{self.path} is a zip archive with a list of entries of {num_bytes:,} bytes; at "
                f"most {MAX_DIRECTORY_BYTES:,} are read. It is damaged or not what it claims to be."
            )

    def _check_kind(self) -> None:
        names = list(self.entries)
        if f"{self.root}/constants.pkl" in self.entries:
            raise CodeNeededError(self.path, "is a TorchScript archive, which is a program")
        if f"{self.root}/data.pkl" in self.entries:
            return
        what = "a zip archive, but none of torch.save"
        remedy = "Expected weights of torch.save or a .safetensors file."
        inside = [name for name in names if name.endswith(WEIGHT_SUFFIXES)]
        if names and all(name.endswith(".npy") for name in names):
            what = "an .npz archive of NumPy arrays"
            remedy = (
                "Write the arrays with torch.save({name: torch.from_numpy(array), ...}, NEW.pth)."
            )
        elif inside:
            remedy = f"Unpack it and give the file inside, such as {inside[0][:100]}."
        raise WeightsError(f"{self.path} is {what}. {remedy}")

    def _check_sizes(self) -> None:
        packed = [entry for entry in self.entries.values() if entry.compress_type or _locked(entry)]
        if packed:
            raise WeightsError(
                f"{self.path}: {packed[0].filename[:100]} is compressed or encrypted, which "
                "torch.save never does; such a file can unpack to any size. Unpack it and pack it "
                "again without compression, or get the file from where it was published."
            )
        total = sum(entry.file_size for entry in self.entries.values())
        if total > self.num_bytes:
            raise WeightsError(
                f"{self.path} pretends to hold {total:,} bytes, and the whole file has "
                f"{self.num_bytes:,}. It is damaged or not what it claims to be."
            )
        pickle_bytes = self.entries[f"{self.root}/data.pkl"].file_size
        if pickle_bytes > MAX_PICKLE_BYTES:
            raise WeightsError(
                f"{self.path} lists its tensors in {pickle_bytes:,} bytes; at most "
                f"{MAX_PICKLE_BYTES:,} are read. It is damaged or not what it claims to be."
            )

    def _check_sum(self, entry: zipfile.ZipInfo) -> None:
        """Check that an entry is as it was written."""
        self.stream.seek(self._start(entry))
        left, found = entry.file_size, 0
        while left > 0:
            chunk = self.stream.read(min(CHUNK_BYTES, left))
            if not chunk:
                raise self._damaged(f"{entry.filename} ends too early")
            found = zlib.crc32(chunk, found)
            left -= len(chunk)
        # torch.save writes 0 where it was told to compute no sums.
        if entry.CRC not in (0, found):
            raise self._damaged(f"{entry.filename} has another check sum than when it was written")

    def _start(self, entry: zipfile.ZipInfo) -> int:
        self.stream.seek(max(0, entry.header_offset))
        header = self.stream.read(LOCAL_BYTES) if entry.header_offset >= 0 else b""
        if len(header) < LOCAL_BYTES or not header.startswith(b"PK\x03\x04"):
            raise self._damaged(f"{entry.filename} is not where its archive says")
        lengths = [int.from_bytes(header[at : at + 2], "little") for at in (26, 28)]
        return entry.header_offset + LOCAL_BYTES + sum(lengths)

    def _damaged(self, how: str) -> WeightsError:
        return WeightsError(
            f"{self.path} is damaged or cut off: {how[:300]}. Copy or fetch it again."
        )


def _locked(entry: zipfile.ZipInfo) -> bool:
    return bool(entry.flag_bits & 1)
