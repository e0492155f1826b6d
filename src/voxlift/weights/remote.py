"""Weights that are not on this machine: of the Hugging Face hub, of the web, of 2D libraries."""

from pathlib import Path

from voxlift.core.errors import WeightsError
from voxlift.core.extras import require_extra
from voxlift.weights.download import fetch_url
from voxlift.weights.huggingface import SCHEME, SUFFIXES, fetch_from_hub

WEB = ("https://", "http://")
TORCHVISION = "torchvision/"
TIMM = "timm/"


def is_remote(text: str) -> bool:
    """Tell whether weights are named by where they lie outside this machine."""
    return text.lower().startswith((SCHEME, *WEB)) or is_library_name(text)


def is_library_name(text: str) -> bool:
    """Tell whether weights are named as a library names them: `torchvision/NAME`, `timm/NAME`."""
    return text.startswith((TORCHVISION, TIMM)) and not text.endswith(SUFFIXES)


def fetch(text: str, *, declared: str | None = None) -> tuple[Path, tuple[str, ...]]:
    """Fetch weights, or find them where they were put when they were fetched before.

    Args:
        text: `hf://org/name[/file][@revision]`, a web address with its checksum, `timm/NAME` or
            `torchvision/NAME[@WEIGHTS]`.
        declared: The format that the caller declares the file to have.

    Returns:
        The file, and notes for the load report.

    Raises:
        WeightsError: If they cannot be had, or nothing says whether they are the right ones.
    """
    if text.lower().startswith(WEB):
        return fetch_url(text), ()
    if text.lower().startswith(SCHEME):
        return fetch_from_hub(SCHEME + text[len(SCHEME) :])
    if text.startswith(TIMM):
        _check_declared(text, declared)
        name = _timm_name(text.removeprefix(TIMM))
        return fetch_from_hub(f"{SCHEME}timm/{name}")
    return _fetch_torchvision(text, declared)


def _fetch_torchvision(text: str, declared: str | None) -> tuple[Path, tuple[str, ...]]:
    from torchvision.models import get_model_weights, list_models, video

    name, _, wanted = text.removeprefix(TORCHVISION).partition("@")
    if name not in list_models():
        raise WeightsError(
            f"torchvision has no model {name!r}; expected one of its own names, such as "
            f"{', '.join(list_models(module=video)[:2])} or resnet18."
        )
    if name not in list_models(module=video):
        _check_declared(text, declared)
    known = get_model_weights(name)
    if wanted and wanted not in known.__members__:
        raise WeightsError(
            f"torchvision has no weights {wanted!r} for {name}; it has "
            f"{', '.join(known.__members__)}."
        )
    weights = known[wanted or "DEFAULT"]
    return fetch_url(weights.url), (f"{weights} of torchvision",)


def _timm_name(name: str) -> str:
    """Add the name of timm's default weights where only the network is named."""
    if "." in name or "/" in name or "@" in name:
        return name
    require_extra("timm", "Weights by the name of a network of timm")
    from timm.models import get_pretrained_cfg, is_model

    if not is_model(name):
        raise WeightsError(
            f"timm has no model {name!r}; expected one of its own names, such as resnet18 or "
            "resnet18.a1_in1k."
        )
    config = get_pretrained_cfg(name)
    tag = getattr(config, "tag", None)
    return f"{name}.{tag}" if tag else name


def _check_declared(text: str, declared: str | None) -> None:
    if declared is None:
        raise WeightsError(
            f"{text} is a 2D network. Say how its kernels shall become 3D: i3d:{text} repeats them "
            f"along depth, acs:{text} splits them over the three planes, 2.5d:{text} leaves them "
            "one slice deep."
        )
