"""Take the paths of this machine out of texts that leave it: folders may name people."""

import re

from pydantic import JsonValue

REMOVED = "(local path)"

# A weight file keeps its own name: it says which start was taken, and no more.
_KEPT = re.compile(r"[^/\\\s]+\.(?:safetensors|pth\.tar|pth|pt|ckpt)$")
_DATA = (
    r"(?:csv|tsv|json|jsonl|ya?ml|toml|txt|log|md|html|xlsx?|parquet|nii|nii\.gz|dcm|npz|npy|nrrd|"
    r"mha|mhd|img|hdr|zip|tar|gz|h5|hdf5|tiff?|png|jpe?g|bmp|safetensors|pth|pt|ckpt|bin|onnx|pkl)"
)
_REMOTE = re.compile(r"(?:[\w.-]+:)?(?:(?:hf|https?)://|timm/|torchvision/)", re.IGNORECASE)

_WORD = r"[^\s'\",;()\[\]{}|]"
_PATHS = re.compile(
    "|".join(
        (
            # Between quotation marks a path may hold spaces.
            r"(?P<quote>['\"])(?:(?!(?P=quote)).)*[/\\](?:(?!(?P=quote)).)*(?P=quote)",
            # What an option is given.
            rf"(?<=\s)--[\w-]+[= ](?P<given>{_WORD}*[/\\]{_WORD}*)",
            # /home/x, ~/x, ./x, ../x, C:\x, \\server\x, //server/x, file:x
            rf"(?<![\w/.\\])(?:~[\w.-]*[/\\]|\.{{1,2}}[/\\]|/(?=[\w.~])|[A-Za-z]:[/\\]|\\\\)"
            rf"{_WORD}*",
            rf"(?<![\w:/.\\])//{_WORD}+",
            rf"(?<!\w)file:{_WORD}+",
            # a/b/c, a\b, a/b.nii.gz
            r"(?<![\w/.:@\\-])[\w.@+-]+(?:[/\\][\w.@+-]+){2,}[/\\]?",
            r"(?<![\w/.:@\\-])[\w.@+-]+\\[\w.@+-]+",
            rf"(?<![\w/.:@\\-])[\w.@+-]+/[\w.@+-]+\.{_DATA}(?!\w)",
        )
    )
)
_ABSOLUTE = re.compile(r"(?:~|/|[A-Za-z]:[/\\]|\\\\|\.{1,2}[/\\]|file:)")
_NUMBERS = re.compile(r"[\d./\s-]+")


def without_paths(text: str) -> str:
    """Replace what looks like a path of this machine in a text.

    Addresses of the web and of the hub stay. Of a weight file the name stays.
    """
    if _ABSOLUTE.match(text) and not _NUMBERS.fullmatch(text) and " --" not in text:
        # The text is one path, spaces and all.
        return _shortened(text)
    return _PATHS.sub(_replaced, text)


def clean(value: JsonValue) -> JsonValue:
    """Replace what looks like a path of this machine in texts, lists and mappings."""
    if isinstance(value, str):
        return without_paths(value)
    if isinstance(value, list):
        return [clean(entry) for entry in value]
    if isinstance(value, dict):
        return {_clean_name(name): clean(entry) for name, entry in value.items()}
    return value


def _clean_name(name: str) -> str:
    # Names of metrics have a slash in them: test/top1.
    return without_paths(name) if _ABSOLUTE.match(name) or "\\" in name else name


def _replaced(found: re.Match[str]) -> str:
    text = found[0]
    given = found["given"]
    path = given if given is not None else text
    if _REMOTE.match(path.strip("'\"")) or _NUMBERS.fullmatch(path):
        return text
    return text[: len(text) - len(path)] + _shortened(path)


def _shortened(path: str) -> str:
    kept = _KEPT.search(path.strip("'\""))
    return kept[0] if kept else REMOVED
