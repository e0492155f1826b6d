"""The encoder of a Swin UNETR, whatever its training called it: find it, rename it, check it.

All files hold MONAI's layers. They differ in what stands before the names, in the names of the
transformer and of its perceptrons, and in what else was trained beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from voxlift.core.architecture import Architecture, PatchMerging
from voxlift.core.errors import WeightsError
from voxlift.core.geometry import ALL, ONES, Geometry
from voxlift.weights.container import Container
from voxlift.weights.foreign.names import WRAPPERS
from voxlift.weights.foreign.swin_shapes import position_index, swin_shapes
from voxlift.weights.foreign.training_state import training_state

ANCHOR = "patch_embed.proj.weight"
TRANSFORMERS = ("swinViT.", "swin_vit.", "encoder.", "")
"""What the names of the transformer's tensors begin with; nothing in the first published file."""

ROOTS = (*WRAPPERS, "model.", "network.", "backbone.", "student.", "teacher.")
"""What may stand before that, in any chain."""

BLOCKS = ("encoder1.", "encoder2.", "encoder3.", "encoder4.", "encoder10.")
PERCEPTRON = {"fc1": "linear1", "fc2": "linear2"}
FIRST_TABLE = "swinViT.layers1.0.blocks.0.attn.relative_position_bias_table"
POSITION_INDEX = ".attn.relative_position_index"

DECODER = "decoder of the file's Swin UNETR, of which the encoder is used"
NOT_ALL_BLOCKS = "block behind the transformer, of which others are missing"
LAST_NORM = "last norm of the pre-training network, which Swin UNETR does not have"
LEFT_OUT = {
    **dict.fromkeys((f"decoder{i}." for i in range(1, 6)), DECODER),
    "out.": "output layer of the file's network",
    "swinViT.norm.": LAST_NORM,
    "norm.": LAST_NORM,
    "swinViT.mask_token": "stands for masked patches in pre-training",
}
"""Parts below the same root that are of no use here, by the beginnings of their names."""

AXES = (
    "trained on volumes with the axes x, y, z; the encoder lays its input out so, and its maps back"
)
NEW_MERGING = "swin_unetr_1.5"
"""Format with which files of MONAI 1.5 and later are declared."""

MERGINGS: dict[PatchMerging, str] = {
    "repeated": "computed with the patch merging of MONAI up to 1.4; no tensor shows the version: "
    f"declare a file that was trained with MONAI 1.5 or later, as in {NEW_MERGING}:FILE",
    "all": "computed with the patch merging of MONAI 1.5 and later, as declared",
}
RAS = (
    "trained on volumes in RAS orientation: against Voxlift's canonical one, which is LPS, the "
    "patient is turned by 180 degrees about the long axis of the body"
)


@dataclass(frozen=True)
class SwinFile:
    """Where a Swin UNETR lies in a file.

    Args:
        root: What stands before all its names, such as `module.backbone.`.
        transformer: What the names of its transformer begin with behind that.
        tensors: Those below the root, by MONAI's names.
        own_names: From MONAI's names to the file's.
        outside: Names in the file of what is not below the root.
    """

    root: str
    transformer: str
    tensors: dict[str, Tensor]
    own_names: dict[str, str]
    outside: tuple[str, ...]

    @property
    def is_v2(self) -> bool:
        """Whether convolutions stand before the transformer's stages."""
        return self.has("swinViT.layers1c.")

    @property
    def has_decoder(self) -> bool:
        """Whether the file holds the whole network."""
        return self.has("decoder1.")

    def has(self, beginning: str) -> bool:
        """Tell whether any of its tensors is called so."""
        return any(name.startswith(beginning) for name in self.tensors)


@dataclass(frozen=True)
class SwinEncoder:
    """An encoder in Voxlift's terms.

    Args:
        architecture: Inferred from its tensors.
        geometry: Its own.
        tensors: By our names, which are MONAI's.
        ignored: What else was in the file, and why it is of no use, by the file's names.
        notes: On how the network was trained.
    """

    architecture: Architecture
    geometry: Geometry
    tensors: dict[str, Tensor]
    ignored: dict[str, str]
    notes: tuple[str, ...]


def open_swin(container: Container) -> SwinFile | None:
    """Find a Swin UNETR, or its transformer, in a file; None if there is none.

    Where a file has two, a student and its teacher, the student is taken.
    """
    starts = [
        name.removesuffix(ANCHOR)
        for name, tensor in container.tensors.items()
        if name.endswith(ANCHOR) and tensor.ndim == 5 and tensor.shape[2:] == (2, 2, 2)
    ]
    found = [place for place in map(_place, starts) if place is not None]
    if not found:
        return None
    root, transformer = min(found, key=lambda place: "teacher." in place[0])
    below = [name for name in container.tensors if name.startswith(root)]
    own_names = {_monai_name(name.removeprefix(root), transformer): name for name in below}
    if FIRST_TABLE not in own_names or len(own_names) != len(below):
        return None
    return SwinFile(
        root,
        transformer,
        {name: container.tensors[own] for name, own in own_names.items()},
        own_names,
        tuple(name for name in container.tensors if not name.startswith(root)),
    )


def read_swin(
    container: Container,
    file: SwinFile,
    *,
    beside: Mapping[str, str] | None = None,
    patch_merging: PatchMerging = "repeated",
) -> SwinEncoder:
    """Take the encoder of a file, and say what is left of it.

    Args:
        container: The file.
        file: What `open_swin` found in it.
        beside: What else its training had, by the beginnings of names without `module.`, and why
            it is of no use.
        patch_merging: With which it was trained.

    Raises:
        WeightsError: If a tensor has a shape that MONAI's network cannot have.
    """
    where = str(container.path)
    left_out = {**LEFT_OUT, **(beside or {})}
    architecture = _architecture(file, patch_merging, where=where)
    if not architecture.name.startswith("swinunetr"):
        left_out |= dict.fromkeys(BLOCKS, NOT_ALL_BLOCKS)
    _check_shapes(file, architecture, where=where)
    ignored = training_state(container.extras)
    tensors = {}
    for name, tensor in file.tensors.items():
        why = _reason(name, left_out)
        if name.endswith(POSITION_INDEX):
            _check_index(file.own_names[name], tensor, where=where)
            why = "offsets within a window, which follow from its size; checked to be those"
        if why is None:
            tensors[name] = tensor
        else:
            ignored[file.own_names[name]] = why
    for name in file.outside:
        why = _reason(name.removeprefix("module."), left_out)
        if why is None:
            tensors[name] = container.tensors[name]
        else:
            ignored[name] = why
    notes = (AXES, MERGINGS[patch_merging])
    return SwinEncoder(architecture, _geometry(architecture), tensors, ignored, notes)


def no_swin(container: Container, *, expected: str) -> WeightsError:
    """Say that a file that was declared to hold a Swin UNETR has none."""
    some = ", ".join(list(container.tensors)[:3])
    return WeightsError(
        f"{container.path} holds no Swin UNETR: its tensors are {some} ... Expected {expected}. "
        "Leave the format out, so that the file is recognised by its tensors."
    )


def is_root(beginning: str) -> bool:
    """Tell whether a beginning of names is a chain of those that only wrap a network."""
    parts = [f"{part}." for part in beginning.split(".")[:-1]]
    return all(part in ROOTS for part in parts)


def _place(start: str) -> tuple[str, str] | None:
    """Part what stands before the patches' layer into root and transformer."""
    transformer = next(t for t in TRANSFORMERS if start.endswith(t))
    root = start.removesuffix(transformer)
    return (root, transformer) if is_root(root) else None


def _monai_name(name: str, transformer: str) -> str:
    """Give a tensor below the root the name that MONAI's Swin UNETR has for it."""
    inside = name.removeprefix(transformer)
    if transformer and inside == name:
        return name
    if not transformer and not inside.startswith(("patch_embed.", "layers")):
        return name
    parts = inside.split(".")
    if transformer == "encoder." and parts[0].startswith("layers"):
        # One pre-training wraps each stage once more: layers1.0.0.blocks ...
        parts = parts[:1] + parts[2:] if parts[1:3] == ["0", "0"] else parts
    if len(parts) > 2 and parts[-3] == "mlp":
        parts[-2] = PERCEPTRON.get(parts[-2], parts[-2])
    return ".".join(["swinViT", *parts])


def _architecture(file: SwinFile, patch_merging: PatchMerging, *, where: str) -> Architecture:
    whole = all(file.has(block) for block in BLOCKS)
    width, in_channels = file.tensors[f"swinViT.{ANCHOR}"].shape[:2]
    if width % 12 or not width or not in_channels:
        raise WeightsError(
            f"{where}: {file.own_names[f'swinViT.{ANCHOR}']} makes {width} channels of "
            f"{in_channels}; a Swin UNETR makes a multiple of 12, mostly 48, of at least one. The "
            "file is of another network."
        )
    return Architecture(
        name=("swinunetr" if whole else "swin") + ("_v2" if file.is_v2 else ""),
        in_channels=in_channels,
        width=width,
        stem_kernel=3,
        norm="instance",
        patch_merging=patch_merging,
    )


def _geometry(architecture: Architecture) -> Geometry:
    if architecture.name.startswith("swinunetr"):
        return Geometry(stem_stride=ONES, stage_strides=(ALL,) * 5)
    return Geometry(stem_stride=ALL, stage_strides=(ALL,) * 4)


def _check_shapes(file: SwinFile, architecture: Architecture, *, where: str) -> None:
    for name, expected in swin_shapes(architecture).items():
        found = tuple(file.tensors[name].shape) if name in file.tensors else expected
        if found != expected:
            raise WeightsError(
                f"{where}: {file.own_names[name]} has the shape {found}; a Swin UNETR with "
                f"{architecture.width} features, windows of 7^3 and 3, 6, 12 and 24 heads has "
                f"{expected}. Other windows, heads or depths are not read: load the file into "
                "MONAI's network yourself."
            )


def _check_index(name: str, tensor: Tensor, *, where: str) -> None:
    if not torch.equal(tensor.long(), position_index()):
        raise WeightsError(
            f"{where}: {name} does not number the offsets within a window of 7^3 as MONAI does, so "
            "the attention would look elsewhere. The file is of another network, or damaged."
        )


def _reason(name: str, left_out: Mapping[str, str]) -> str | None:
    return next((why for start, why in left_out.items() if name.startswith(start)), None)
