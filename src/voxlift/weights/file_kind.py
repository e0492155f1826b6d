"""What a file is by its first bytes, or by its name: for those that hold no weights we can read."""

from pathlib import Path

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
"""How a file of `torch.save` began before it was a zip archive: a pickled number."""

PICKLE_STARTS = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))

OTHER_FILES: tuple[tuple[bytes, str], ...] = (
    (ZIP_MAGIC, "a zip archive, most likely a pickled file of torch.save"),
    (LEGACY_MAGIC, "a pickled file of an old torch.save"),
    *((start, "a pickled file, but none of torch.save") for start in PICKLE_STARTS),
    (b"\x1f\x8b", "a gzip archive; unpack it and give the file inside"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it and give the file inside"),
    (b"\xfd7zXZ", "an xz archive; unpack it and give the file inside"),
    (b"Rar!", "a rar archive; unpack it and give the file inside"),
    (b"\x89HDF", "an HDF5 file, most likely of Keras"),
    (b"\x93NUMPY", "an array of NumPy, not the weights of a network"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file that it points to"),
    (b"<", "a web page or XML, not the file that was asked for"),
)
"""How files begin that people hand over by mistake, and what they are."""

OTHER_NAMES: tuple[tuple[str, str], ...] = (
    (".onnx", "an ONNX file, which holds a program; take the weights that it was exported from"),
    (".index", "a part of a TensorFlow checkpoint"),
    (".data-00000-of-00001", "a part of a TensorFlow checkpoint"),
    (".pb", "a TensorFlow graph"),
    (".tflite", "a TensorFlow Lite model"),
    (".meta", "a part of a TensorFlow checkpoint"),
    (".gguf", "a GGUF file, which holds language models"),
)
"""How the names of such files end where their first bytes say nothing."""

TAR_MAGIC_AT = 257


def is_torch_file(start: bytes) -> bool:
    """Tell by its first bytes whether a file may be one of `torch.save`."""
    return start.startswith((ZIP_MAGIC, LEGACY_MAGIC))


def describe_file(path: Path, start: bytes) -> str:
    """Say what a file is that is not one of safetensors.

    Args:
        path: Its name.
        start: Its first bytes.
    """
    if not start:
        return "an empty file"
    for magic, what in OTHER_FILES:
        if start.startswith(magic):
            return what
    if start[TAR_MAGIC_AT:].startswith(b"ustar"):
        return "a tar archive; unpack it and give the file inside"
    for ending, what in OTHER_NAMES:
        if path.name.endswith(ending):
            return what
    return "no safetensors file: its header is missing"
