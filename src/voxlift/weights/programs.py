"""Programs that networks were exported to: no weight files, but they may know theirs."""

import mmap
import zipfile
import zlib
from pathlib import Path

from voxlift.core.errors import WeightsError
from voxlift.weights.header import HEADER_KEY, WeightHeader, parse_header

TORCH_MEMBERS = ("/archive_format", "serialized_exported_program.json")
"""Ends of the names by which an archive of torch.export is told from one of torch.save."""

TORCH_HEADERS = (f"/extra/{HEADER_KEY}", f"extra_files/{HEADER_KEY}")
MAX_HEADER_BYTES = 2**20
ONNX_SUFFIX = ".onnx"
ONNX_ENTRY = b"\n" + bytes([len(HEADER_KEY)]) + HEADER_KEY.encode() + b"\x12"
"""How the entry of our header begins among the metadata of an ONNX file."""


def refuse_program(path: str | Path) -> None:
    """Refuse a program of torch.export or ONNX, with what it says of itself.

    Raises:
        WeightsError: If the file is one.
    """
    path = Path(path)
    try:
        if path.name.lower().endswith(ONNX_SUFFIX) and path.is_file():
            kind, run = "an ONNX file", f"onnxruntime.InferenceSession({path.name!r})"
            text = _onnx_text(path)
        elif path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                if not any(name.endswith(TORCH_MEMBERS) for name in names):
                    return
                kind, run = "a file of torch.export", f"torch.export.load({path.name!r}).module()"
                text = _torch_text(archive)
        else:
            return
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError):
        # Whoever reads it next says what is wrong with it.
        return
    header = _header(text, path)
    raise WeightsError(
        f"{path} is {kind}, which holds a program{_origin(header)}. It is run without Voxlift, by "
        f"{run}; its weights cannot be taken out again. To inspect, train or convert them, give "
        f"the weight file that it was exported from{_file(header)}."
    )


def _torch_text(archive: zipfile.ZipFile) -> bytes:
    for entry in archive.infolist():
        if entry.filename.endswith(TORCH_HEADERS) and entry.file_size <= MAX_HEADER_BYTES:
            return archive.read(entry)
    return b""


def _onnx_text(path: Path) -> bytes:
    """Find our header by its entry, for an ONNX file can be read by no package that is here."""
    if not path.stat().st_size:
        return b""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        # Metadata stand at the end, behind the weights.
        at = data.rfind(ONNX_ENTRY)
        if at < 0:
            return b""
        at += len(ONNX_ENTRY)
        length = shift = 0
        for byte in data[at : at + 5]:
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        return data[at : at + length] if length <= MAX_HEADER_BYTES else b""


def _header(text: bytes, path: Path) -> WeightHeader | None:
    """Read a header; None if there is none, or it is none of ours."""
    try:
        return parse_header(text.decode(), where=str(path)) if text else None
    except (UnicodeDecodeError, WeightsError):
        return None


def _origin(header: WeightHeader | None) -> str:
    if header is None:
        return ""
    told = f", made by Voxlift of a {header.architecture.name} of width {header.architecture.width}"
    head = header.head
    if head is None:
        return told
    names = ", ".join(head.class_names[:10]) or f"{head.num_classes} classes"
    return f"{told}, trained to {head.task}: {names}"


def _file(header: WeightHeader | None) -> str:
    sha256 = header.provenance.get("exported_from") if header else None
    return f" (its sha256 is {sha256})" if sha256 else ""
