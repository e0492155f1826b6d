"""SegResNet of MONAI: SuPreM's, pre-trained to segment organs, and any other."""

import re
from dataclasses import dataclass

from torch import Tensor

from voxlift.core.architecture import Architecture, Stage
from voxlift.core.errors import WeightsError
from voxlift.core.geometry import ALL, Geometry
from voxlift.weights.container import Container
from voxlift.weights.foreign.suprem import ABOUT, HEADS, LICENCE, is_under_net, suprem_header
from voxlift.weights.foreign.swin_file import AXES, is_root
from voxlift.weights.foreign.training_state import training_state
from voxlift.weights.header import WeightHeader
from voxlift.weights.translation import Translation

FIRST = "convInit.conv.weight"
LEVEL = "down_layers."
BLOCK = re.compile(r"down_layers\.(?P<level>\d{1,2})\.(?P<block>\d{1,3})\.")
UP = re.compile(r"up_(layers|samples)\.(?P<step>\d{1,2})\.")
KERNEL = re.compile(
    r"(?P<root>.*?)(convInit|down_layers\.\d{1,2}\.\d{1,3}\.conv[12])\.conv\.weight"
)
"""Kernels that tell a SegResNet, and what stands before them."""

PARTS_SHOWN = 6
USUAL_BLOCKS = (1, 2, 2, 4)
DECODER = "decoder of the file's SegResNet, of which the encoder is used"
LEFT_OUT = {
    "up_layers.": DECODER,
    "up_samples.": DECODER,
    "conv_final.": "output layers of the file's network",
    **HEADS,
}
CITATION = (
    "Myronenko, 3D MRI brain tumor segmentation using autoencoder regularization, arXiv 1810.11654"
)


class SegResNetFormat:
    """SegResNets of MONAI, SuPreM's under the key `net` among them; the encoder is used."""

    summary = "SegResNet of MONAI: SuPreM's supervised_suprem_segresnet_2100.pth, fine-tuned ones"
    licence: str | None = f"of SuPreM's file: {LICENCE}"

    def recognises(self, container: Container) -> bool:
        """Look for the first convolution or residual blocks, though others may be missing."""
        return _open_segresnet(container) is not None

    def translate(self, container: Container) -> Translation:
        """Take the encoder, under MONAI's names, and leave the decoder."""
        file = _open_segresnet(container)
        if file is None:
            some = ", ".join(list(container.tensors)[:3])
            raise WeightsError(
                f"{container.path} holds no SegResNet: its tensors are {some} ... Expected "
                f"{FIRST}, {LEVEL}0.1.conv1.conv.weight and the like. Leave the format out, so "
                "that the file is recognised by its tensors."
            )
        architecture = _segresnet(file, where=str(container.path))
        tensors, ignored = _sorted_out(container, file)
        num_levels = len(architecture.stages or USUAL_BLOCKS)
        geometry = Geometry(stage_strides=(ALL,) * (num_levels - 1))
        groups = "computed with 8 groups in each norm, MONAI's default; the file does not say"
        if is_under_net(container):
            return Translation(
                tensors,
                suprem_header(container, architecture, geometry, axes=AXES),
                ignored=ignored,
                notes=(AXES, *ABOUT, groups),
            )
        about = "the file says nothing of its input"
        header = WeightHeader(
            architecture=architecture,
            geometry=geometry,
            provenance={"source": "SegResNet in MONAI's names", "input": f"{about}; {AXES}"},
            citation=CITATION,
        )
        return Translation(tensors, header, ignored=ignored, notes=(AXES, about, groups))


@dataclass(frozen=True)
class _SegResNetFile:
    root: str
    tensors: dict[str, Tensor]
    outside: tuple[str, ...]


def _open_segresnet(container: Container) -> _SegResNetFile | None:
    for name, tensor in container.tensors.items():
        found = KERNEL.fullmatch(name)
        if found is None or tensor.ndim != 5 or not is_root(found["root"]):
            continue
        root = found["root"]
        below, outside = {}, []
        for own_name, own in container.tensors.items():
            if own_name.startswith(root):
                below[own_name.removeprefix(root)] = own
            else:
                outside.append(own_name)
        return _SegResNetFile(root, below, tuple(outside))
    return None


def _segresnet(file: _SegResNetFile, *, where: str) -> Architecture:
    """Infer width, channels and blocks, and check every shape that follows from them."""
    blocks = _count_blocks(file.tensors)
    missing = _missing_parts(file.tensors, blocks)
    if missing:
        more = len(missing) - PARTS_SHOWN
        raise WeightsError(
            f"{where} holds a SegResNet of which parts are missing: "
            f"{', '.join(file.root + part for part in missing[:PARTS_SHOWN])}"
            f"{f' and {more} more' if more > 0 else ''}. It was cut short or edited: fetch or save "
            "it again, whole."
        )
    width, in_channels = (*file.tensors[FIRST].shape, 0, 0)[:2]
    if width % 8 or not width or not in_channels:
        raise WeightsError(
            f"{where}: {file.root}{FIRST} makes {width} channels of {in_channels}; group norm with "
            "8 groups needs a multiple of 8, of at least one. The file is of another network."
        )
    for name, expected in _shapes(blocks, width, in_channels).items():
        found = tuple(file.tensors[name].shape)
        if found != expected:
            raise WeightsError(
                f"{where}: {file.root}{name} has the shape {found}; a SegResNet with {width} "
                f"filters in its first layer has {expected}. The file is of another network."
            )
    stages = tuple(Stage(channels=width * 2**i, blocks=n) for i, n in enumerate(blocks))
    return Architecture(
        name="segresnet",
        in_channels=in_channels,
        width=width,
        stem_kernel=3,
        norm="group",
        stages=None if blocks == USUAL_BLOCKS else stages,
    )


def _shapes(blocks: tuple[int, ...], width: int, in_channels: int) -> dict[str, tuple[int, ...]]:
    """List the tensors of an encoder."""
    shapes: dict[str, tuple[int, ...]] = {FIRST: (width, in_channels, 3, 3, 3)}
    for level, count in enumerate(blocks):
        channels = width * 2**level
        if level:
            shapes[f"{LEVEL}{level}.0.conv.weight"] = (channels, channels // 2, 3, 3, 3)
        for block in range(1, count + 1):
            for number in (1, 2):
                name = f"{LEVEL}{level}.{block}"
                shapes[f"{name}.conv{number}.conv.weight"] = (channels, channels, 3, 3, 3)
                shapes[f"{name}.norm{number}.weight"] = (channels,)
                shapes[f"{name}.norm{number}.bias"] = (channels,)
    return shapes


def _count_blocks(tensors: dict[str, Tensor]) -> tuple[int, ...]:
    """Count the blocks of each level as far as anything tells of them, the decoder too."""
    blocks: dict[int, int] = {0: 1}
    for name in tensors:
        found = BLOCK.match(name)
        if found is not None:
            level, block = int(found["level"]), int(found["block"])
            blocks[level] = max(blocks.get(level, 1), block)
        found = UP.match(name)
        if found is not None:
            # As many steps lead up as lead down.
            blocks.setdefault(int(found["step"]) + 1, 1)
    return tuple(blocks.get(level, 1) for level in range(max(blocks) + 1))


def _missing_parts(tensors: dict[str, Tensor], blocks: tuple[int, ...]) -> list[str]:
    """Name the layers, or whole levels, that an encoder should have and the file has not."""
    levels = {name.split(".")[1] for name in tensors if name.startswith(LEVEL)}
    parts: dict[str, None] = {}
    for name in _shapes(blocks, 1, 1):
        level = name.split(".")[1]
        if name in tensors:
            continue
        if name.startswith(LEVEL) and level not in levels:
            parts[f"{LEVEL}{level}"] = None
        else:
            parts[name.rsplit(".", 2 if ".conv" in name else 1)[0]] = None
    return list(parts)


def _sorted_out(
    container: Container, file: _SegResNetFile
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Part what is of use from what is not; what nobody knows stays, and makes the load fail."""
    tensors, ignored = {}, training_state(container.extras)
    named = {file.root + name: name for name in file.tensors}
    named |= {name: name.removeprefix("module.") for name in file.outside}
    for own_name, name in named.items():
        why = next((why for start, why in LEFT_OUT.items() if name.startswith(start)), None)
        if why is None:
            tensors[name] = container.tensors[own_name]
        else:
            ignored[own_name] = why
    return tensors, ignored
