"""Ways of damaging a file, in its bytes and behind its check sums and its syntax.

Every change is drawn from the generator that is passed, so a case can be made again.
"""

import gzip
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

MAX_BYTES = 2**20
"""A damaged file has at most as many bytes; what a short file claims is what is tested."""

_TOKEN = re.compile(r"[^\s,:;=()\[\]{}\"']+")
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_TEXT_HEADERS = (b"NRRD", b"ObjectType", b"NDims", b"\x93NUMPY")
_TOKENS = (
    *("", "-1", "0", "1", "-0", "nan", "NaN", "inf", "-inf", "1e400", "1e-400", "1e38", "0x10"),
    *("2147483647", "4294967296", "-9223372036854775808", "99999999999999999999999", "1" * 5000),
    *("none", "null", "true", "{}", "[]", "../x", "/", "LIST", "%d", "é", "\0", "\ufeff", '"', "'"),
    *("(", ")", "1_000", "1.5", "A" * 10000, "raw", "gzip", "ascii", "bzip2", "True", "block"),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 10**400, 1e308, 0.5, -0.0),
    *(float("nan"), float("inf"), -float("inf")),
    *("", "0", "x", "../x", "\0", "é", "\ud800", "A" * 10000, "1", "nan"),
    *([], {}, [[]], [None], {"": None}, [0, 0, 0, 0], {"0": "x"}, [1e308] * 4, [[1, 2], [3, 4]]),
)
_INTEGERS = (0, 1, -1, 2, 7, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)
_WIDE_INTEGERS = (*_INTEGERS, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_REALS = (0.0, -0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), -float("inf"))

Change = Callable[[bytes, Random, Sequence[bytes]], bytes]


def mutate(content: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Damage a file in one to four ways.

    Args:
        content: The file.
        random: What is done is drawn from it.
        others: Other files, to take pieces from.
    """
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        content = random.choice(_changes(content))(content, random, others)[:MAX_BYTES]
    return content


def _changes(content: bytes) -> Sequence[Change]:
    """List what can be done to a file, by what it is; its plain bytes can always be changed."""
    if content.startswith(b"\x1f\x8b"):
        return (change_bytes, change_gzip, change_gzip)
    if content.startswith(b"PK\x03\x04"):
        return (change_bytes, change_zip, change_zip)
    if content.startswith(_PNG_MAGIC):
        return (change_bytes, change_png)
    if content.startswith(_TEXT_HEADERS):
        return (change_bytes, change_header, change_header)
    if content[8:9] == b"{":
        return (change_bytes, change_safetensors, change_safetensors)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return (change_bytes,)
    if text.lstrip()[:1] in ("{", "["):
        return (change_bytes, change_text, change_json, change_json)
    return (change_bytes, change_text, change_text)


def change_bytes(  # noqa: C901 - a list of ways
    content: bytes, random: Random, others: Sequence[bytes]
) -> bytes:
    """Flip, cut, repeat or overwrite bytes, more often near the beginning, where headers are."""
    data = bytearray(content)
    size = len(data)
    at = (
        random.randrange(size + 1)
        if random.random() < 0.5
        else random.randrange(min(size, 600) + 1)
    )
    length = random.choice((1, 1, 2, 4, 8, 16, 100, 1000))
    match random.randrange(9):
        case 0:
            for _ in range(random.choice((1, 1, 2, 8))):
                if size:
                    place = (at + random.randrange(64)) % size
                    data[place] ^= 1 << random.randrange(8)
        case 1:
            del data[at:]
        case 2:
            del data[at : at + length]
        case 3:
            data[at:at] = data[at : at + length] * random.choice((1, 2, 50))
        case 4:
            data[at:at] = random.randbytes(length)
        case 5:
            data[at : at + length] = random.randbytes(length)
        case 6:
            width = random.choice((1, 2, 4, 8))
            value = random.choice(_WIDE_INTEGERS) % 256**width
            data[at : at + width] = value.to_bytes(width, random.choice(("little", "big")))
        case 7:
            data[at : at + 8] = struct.pack(
                random.choice(("<f", ">f", "<d", ">d")), random.choice(_REALS)
            )
        case _:
            other = random.choice(others)
            cut = random.randrange(len(other) + 1)
            data[at : at + length] = other[cut : cut + length]
    return bytes(data)


def change_text(content: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Replace, delete, swap or repeat words and lines."""
    text = content.decode("latin-1")
    tokens = list(_TOKEN.finditer(text))
    if tokens and random.random() < 0.7:
        one, other = random.choice(tokens), random.choice(tokens)
        new = other[0] if random.random() < 0.25 else random.choice(_TOKENS)
        text = text[: one.start()] + new + text[one.end() :]
    else:
        lines = text.splitlines(keepends=True) or [""]
        at = random.randrange(len(lines))
        match random.randrange(5):
            case 0:
                del lines[at]
            case 1:
                lines[at:at] = [lines[at]] * random.choice((1, 2, 1000))
            case 2:
                other_at = random.randrange(len(lines))
                lines[at], lines[other_at] = lines[other_at], lines[at]
            case 3:
                lines[at] = random.choice(("\n", "\n\n", "\r", "\0\n", "#\n", ":\n", " = \n"))
            case _:
                lines.insert(at, random.choice(others).decode("latin-1")[:200] + "\n")
        text = "".join(lines)
    return text.encode("latin-1", errors="replace")


def change_header(content: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Change the text at the beginning of a binary file."""
    if content.startswith(b"\x93NUMPY"):
        start, end = 10, content.find(b"\n") + 1
        header = change_text(content[start:end], random, others)
        length = len(header) if random.random() < 0.8 else random.choice(_INTEGERS)
        return content[:8] + (length % 2**16).to_bytes(2, "little") + header + content[end:]
    end = content.find(b"\n\n") + 1
    if end <= 0:
        end = content.find(b"\n", content.find(b"ElementDataFile")) + 1 or len(content)
    return change_text(content[:end], random, others) + content[end:]


def change_json(content: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Replace, delete, wrap or nest a value of a JSON text."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return change_text(content, random, others)
    if random.random() < 0.04:
        depth = random.choice((500, 5000, 100_000))
        return random.choice((b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth))
    places = list(_places([tree]))
    parent, key = random.choice(places[1:] or places)
    match random.randrange(6):
        case 0 | 1 | 2:
            parent[key] = random.choice(_VALUES)
        case 3:
            value: Any = parent[key]
            for _ in range(random.choice((1, 1, 300))):
                value = [value]
            parent[key] = value
        case 4:
            del parent[key]
        case _:
            other_parent, other_key = random.choice(places)
            parent[key] = json.loads(json.dumps(other_parent[other_key]))
    return json.dumps(tree).encode("utf-8", errors="surrogatepass")


def _places(tree: Any) -> Any:
    """List every value of a tree by what holds it and its key there."""
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        for key in list(one) if isinstance(one, dict) else range(len(one)):
            yield one, key
            if isinstance(one[key], dict | list):
                waiting.append(one[key])


def change_safetensors(content: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Change the JSON header of a safetensors file, or what stands as JSON in its texts."""
    length = int.from_bytes(content[:8], "little")
    header, tensors = content[8 : 8 + length], content[8 + length :]
    try:
        tree = json.loads(header)
        texts = tree["__metadata__"]
        name = random.choice(list(texts))
        if random.random() < 0.5:
            changed = change_json(texts[name].encode(), random, others)
            texts[name] = changed.decode("utf-8", errors="replace")
            header = json.dumps(tree).encode()
        else:
            header = change_json(header, random, others)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        header = change_json(header, random, others)
    return len(header).to_bytes(8, "little") + header + tensors


def change_gzip(content: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Change what is compressed, and compress it again: its check sum is right."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            inside = file.read(MAX_BYTES)
    except (OSError, EOFError, zlib.error):
        return change_bytes(content, random, others)
    return gzip.compress(change_bytes(inside, random, others), compresslevel=1, mtime=0)


def change_zip(content: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Change, remove, repeat or rename an entry; the check sums are right."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = [(one, archive.read(one)[:MAX_BYTES]) for one in archive.infolist()]
    except (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError):
        return change_bytes(content, random, others)
    if not entries:
        return change_bytes(content, random, others)
    at = random.randrange(len(entries))
    if random.random() < 0.5:
        # The pickle of a file of torch.save is where most can go wrong.
        at = next((n for n, (one, _) in enumerate(entries) if one.filename.endswith(".pkl")), at)
    entry, inside = entries[at]
    match random.randrange(8):
        case 0:
            del entries[at]
        case 1:
            entries.append((entry, inside))
        case 2:
            name = random.choice(_TOKENS[:20]) + entry.filename[random.randrange(3) :]
            entries[at] = (zipfile.ZipInfo(name[:200]), inside)
        case _:
            entries[at] = (entry, random.choice(_changes(inside))(inside, random, others))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for one, data in entries:
            new = zipfile.ZipInfo(one.filename)
            new.compress_type = one.compress_type
            if data == inside and random.random() < 0.05:
                new.compress_type = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            archive.writestr(new, data)
    return packed.getvalue()


def change_png(content: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Change a chunk of a PNG picture; its check sum is right."""
    chunks, at = [], len(_PNG_MAGIC)
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return change_bytes(content, random, others)
    number = random.randrange(len(chunks))
    kind, data = chunks[number]
    match random.randrange(5):
        case 0:
            del chunks[number]
        case 1:
            chunks.insert(number, (kind, data))
        case 2:
            kinds = (
                b"iCCP",
                b"zTXt",
                b"iTXt",
                b"eXIf",
                b"tRNS",
                b"PLTE",
                b"acTL",
                b"fcTL",
                b"gAMA",
            )
            chunks.insert(
                number, (random.choice(kinds), zlib.compress(data)[: random.randrange(99)])
            )
        case _:
            chunks[number] = (kind, change_bytes(data, random, others))
    return _PNG_MAGIC + b"".join(
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        for kind, data in chunks
    )
