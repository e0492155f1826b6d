"""Whatever a file is declared to be and whatever it holds: it is translated, or refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from voxlift.core.errors import WeightsError
from voxlift.weights.container import Container
from voxlift.weights.formats import FORMATS, recognise
from voxlift.weights.header import HEADER_KEY, WeightHeader

State = dict[str, Tensor]
MakeContainer = Callable[..., Container]

SWIN = {
    "swinViT.patch_embed.proj.weight": torch.zeros(12, 1, 2, 2, 2),
    "swinViT.layers1.0.blocks.0.attn.relative_position_bias_table": torch.zeros(2197, 3),
}
PLANAR = {
    "conv1.weight": torch.zeros(64, 3, 7, 7),
    "bn1.weight": torch.zeros(64),
    "layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3),
}
STEMS = {
    "conv1.weight": (4, 1, 7, 7, 7),
    "conv1_custom.weight": (4, 1, 1, 7, 7),
    "stem.0.weight": (4, 3, 3, 7, 7),
    "stem.convs.0.conv.weight": (4, 1, 3, 3, 3),
    "down_tr64.ops.0.conv1.weight": (4, 1, 3, 3, 3),
    "unet.inc.double_conv.0.weight": (8, 1, 3, 3, 3),
    "convInit.conv.weight": (8, 1, 3, 3, 3),
    "swinViT.patch_embed.proj.weight": (12, 1, 2, 2, 2),
}
"""The first layer of each family, of the shape that it has there."""

SECOND = {
    "conv1.weight": ("bn1.weight", "layer1.0.conv1.weight"),
    "conv1_custom.weight": ("layer1.0.norm_1.weight", "groupconv_1.weight"),
    "stem.0.weight": ("layer1.0.conv1.0.weight",),
    "stem.convs.0.conv.weight": ("stages.0.blocks.0.conv1.conv.weight",),
    "convInit.conv.weight": ("down_layers.0.1.conv1.conv.weight",),
    "swinViT.patch_embed.proj.weight": tuple(SWIN)[1:],
}
STATES: dict[str, State] = {
    "empty": {},
    "perceptron": {
        "0.weight": torch.zeros(8, 4),
        "0.bias": torch.zeros(8),
        "2.bias": torch.ones(2),
    },
    "2D ResNet": PLANAR,
    "2D ResNet of a detector": {f"module.backbone.{name}": t for name, t in PLANAR.items()},
    "Swin UNETR cut short": SWIN,
    "wrapped": {f"module._orig_mod.{name}": t for name, t in SWIN.items()},
    "prefixes alone": {"module.": torch.zeros(1), "backbone.": torch.zeros(1)},
    "number": {"": torch.tensor(1.0)},
}
for _stem, _shape in STEMS.items():
    STATES[f"{_stem} alone"] = {_stem: torch.zeros(_shape)}
    _second = {name: torch.zeros(_shape) for name in SECOND.get(_stem, ())}
    STATES[f"{_stem} and more"] = {_stem: torch.zeros(_shape), **_second}
    STATES[f"{_stem} of nothing"] = {_stem: torch.zeros(0, 0, *_shape[2:]), **_second}
    STATES[f"{_stem} flat"] = {_stem: torch.zeros(4), **{n: torch.zeros(4) for n in _second}}
    STATES[f"{_stem} of no dimension"] = dict.fromkeys([_stem, *_second], torch.tensor(1.0))


SWIN_ALONE = {"Swin UNETR cut short", "wrapped"}
"""Taken for what they are; what they lack is found when they are loaded."""

PREFIXES = ("", "module.", "backbone.", "module.backbone.")


def refusal(work: Callable[[Container], object], container: Container) -> str | None:
    """Say why a file is refused; None if it is not."""
    try:
        work(container)
    except WeightsError as error:
        return str(error)
    return None


@pytest.mark.parametrize("wrapper", ["", "net"])
@pytest.mark.parametrize("declared", FORMATS)
def test_what_is_no_file_of_the_format_is_refused(
    make_container: MakeContainer, declared: str, wrapper: str
) -> None:
    is_swin = declared in ("swin_unetr", "swin_unetr_1.5", "suprem_swinunetr")
    for what, state in STATES.items():
        for prefix in PREFIXES:
            container = make_container(state, prefix=prefix, wrapper=wrapper)
            why = refusal(FORMATS[declared].translate, container)
            if why is None:
                assert is_swin, what
                assert what in SWIN_ALONE
            else:
                assert "weights.pth" in why


@pytest.mark.parametrize("wrapper", ["", "net"])
def test_telling_what_a_file_is_never_fails_otherwise(
    make_container: MakeContainer, wrapper: str
) -> None:
    for state in STATES.values():
        for prefix in PREFIXES:
            why = refusal(recognise, make_container(state, prefix=prefix, wrapper=wrapper))
            assert why is None or "weights.pth" in why


@pytest.mark.parametrize("declared", sorted(set(FORMATS) - {"voxlift"}))
def test_a_header_of_ours_changes_nothing_but_for_our_own_2d_files(
    make_container: MakeContainer, header: WeightHeader, declared: str
) -> None:
    container = make_container(STATES["perceptron"])
    container.metadata[HEADER_KEY] = header.to_json()
    with pytest.raises(WeightsError, match=r"weights\.pth"):
        FORMATS[declared].translate(container)
