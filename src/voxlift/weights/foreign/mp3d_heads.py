"""What stands on the backbone in MP3D's detectors, as far as it computes the same function here.

Source:
    The modules are those of mmdetection. Its version 2 puts the box head below `roi_head.`; in
    version 1, which has `bbox_head.`, anchors lie elsewhere.
"""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from voxlift.weights.foreign.shapes import Shape

NUM_ANCHORS = 3
"""About each pixel: one size, 4 strides, in the ratios 0.5, 1 and 2 of height over width."""

ANCHORS_NOTE = (
    "the proposals' anchors, which the tensors do not state, are those of MP3D's configurations: "
    "4 strides, ratios 0.5, 1 and 2"
)
REASONS = {
    "neck": "its pyramid is another: here each map of the backbone has one lateral and one output "
    "convolution, with bias and without norm, and the coarsest level is pooled",
    "rpn_head": "proposals are only taken with the pyramid, from mmdetection 2 (anchors of version "
    "1 lie elsewhere), with one sigmoid score for each of 3 anchors",
    "roi_head": "the features of a box are sampled at other points (RoIAlign) there than here",
}
REASONS["bbox_head"] = REASONS["roi_head"]
OTHER_REASON = "no part of a detector here"

Renamed = Iterator[tuple[str, str, Shape]]
"""Name in the file, name here, and shape of each tensor."""


def translate_heads(
    tensors: Mapping[str, Tensor], *, in_channels: Sequence[int]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Take the parts that compute the same function here, each in whole or not at all.

    Args:
        tensors: All tensors of the file that are not of the backbone.
        in_channels: Channels of the backbone's maps.

    Returns:
        The tensors that are taken, by the names of `Detector`, and why each other one is not.
    """
    lateral = tensors.get("neck.lateral_convs.0.conv.weight")
    channels = 0 if lateral is None else len(lateral)
    taken = _take(tensors, "neck.", _pyramid(in_channels, channels))
    if taken and any(name.startswith("roi_head.") for name in tensors):
        taken |= _take(tensors, "rpn_head.", _proposals(channels))
    ignored = {
        name: f"{name.split('.')[0]} of the file's detector: "
        + REASONS.get(name.split(".")[0], OTHER_REASON)
        for name in tensors
        if name not in taken
    }
    return {ours: tensors[theirs] for theirs, ours in taken.items()}, ignored


def _take(tensors: Mapping[str, Tensor], prefix: str, expected: Renamed) -> dict[str, str]:
    """Name the tensors of a part here by their names in the file; none if they are others."""
    renamed = {theirs: (ours, shape) for theirs, ours, shape in expected}
    found = {name: tuple(t.shape) for name, t in tensors.items() if name.startswith(prefix)}
    if found != {name: shape for name, (_, shape) in renamed.items()}:
        return {}
    return {name: ours for name, (ours, _) in renamed.items()}


def _pyramid(in_channels: Sequence[int], channels: int) -> Renamed:
    for level, before in enumerate(in_channels):
        lateral, output = f"neck.lateral_convs.{level}.conv", f"neck.fpn_convs.{level}.conv"
        yield from _conv(lateral, f"fpn.inner_blocks.{level}.0", (channels, before, 1, 1))
        yield from _conv(output, f"fpn.layer_blocks.{level}.0", (channels, channels, 3, 3))


def _proposals(channels: int) -> Renamed:
    ours = "head.rpn.head"
    yield from _conv("rpn_head.rpn_conv", f"{ours}.conv.0.0", (channels, channels, 3, 3))
    yield from _conv("rpn_head.rpn_cls", f"{ours}.cls_logits", (NUM_ANCHORS, channels, 1, 1))
    yield from _conv("rpn_head.rpn_reg", f"{ours}.bbox_pred", (4 * NUM_ANCHORS, channels, 1, 1))


def _conv(theirs: str, ours: str, shape: Shape) -> Renamed:
    yield f"{theirs}.weight", f"{ours}.weight", shape
    yield f"{theirs}.bias", f"{ours}.bias", shape[:1]
