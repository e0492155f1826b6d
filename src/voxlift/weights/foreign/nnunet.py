"""Checkpoints of nnU-Net v2 and of nnssl, of which the residual encoder is used."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from voxlift.core.architecture import Norm
from voxlift.core.errors import WeightsError
from voxlift.core.geometry import ALL, ONES, Geometry
from voxlift.core.types import Triple
from voxlift.weights.container import Container
from voxlift.weights.foreign.names import WRAPPERS, split_prefix, strip_prefixes
from voxlift.weights.foreign.nnunet_plan import NnunetPlan, read_plan
from voxlift.weights.foreign.resenc_names import (
    PLAIN_SKIP,
    POOLED_SKIP,
    STEM,
    join_aliases,
    read_resenc,
    resenc_shapes,
    same_tensor,
)
from voxlift.weights.foreign.shapes import check_shapes
from voxlift.weights.foreign.training_state import training_state
from voxlift.weights.header import WeightHeader
from voxlift.weights.translation import Translation

WHAT = "a residual encoder of nnU-Net"
ADAPTATION_PLAN = "nnssl_adaptation_plan"
PLAIN_ENCODER = re.compile(r"(.+\.)?stages\.0\.0\.convs\.0\.conv\.weight")
DECODER = "decoder."
NNUNET = "Isensee et al., nnU-Net Revisited, MICCAI 2024, arXiv 2404.09556"
NNSSL = (
    "Wald et al., Revisiting MAE Pre-training for 3D Medical Image Segmentation, CVPR 2025, "
    "arXiv 2410.23132; and what the checkpoint lists as citations"
)
NEGATIVE_SLOPE = 0.01
EPSILON = 1e-5


@dataclass(frozen=True)
class EncoderPart:
    """The encoder in a checkpoint.

    Args:
        tensors: By bare names, aliases joined.
        prefix: What the file's names of them begin with, such as `encoder.`.
        ignored: Everything else, by the names of the file.
    """

    tensors: dict[str, Tensor]
    prefix: str
    ignored: dict[str, str]


class NnunetFormat:
    """Checkpoints of nnU-Net v2 and nnssl whose network has a residual encoder (ResEnc)."""

    summary = (
        "nnU-Net v2 and nnssl: checkpoints with a residual encoder (ResEnc), such as those "
        "pre-trained on OpenMind"
    )
    licence: str | None = None

    def recognises(self, container: Container) -> bool:
        """Look for the stem of a residual encoder, a plain encoder's first layer, or a plan."""
        return ADAPTATION_PLAN in container.extras or any(
            _is_stem(name) or PLAIN_ENCODER.fullmatch(name) for name in container.tensors
        )

    def translate(self, container: Container) -> Translation:
        """Take the encoder; strides come from the plan beside it, or are inferred."""
        plan, where = read_plan(container.extras), str(container.path)
        part = find_encoder(container, plan)
        architecture, tensors, called = read_resenc(part.tensors, where=where)
        _check_function(plan, architecture.norm, where=where)
        shapes = resenc_shapes(architecture)
        adapted = _add_biases(tensors, shapes)
        called = {name: part.prefix + called.get(name, name) for name in (*shapes, *tensors)}
        check_shapes(tensors, shapes, what=WHAT, where=where, called=called)
        assert architecture.stages is not None
        strides, notes = find_strides(part.tensors, len(architecture.stages), plan)
        is_nnssl = ADAPTATION_PLAN in container.extras
        preprocessing = plan.preprocessing(architecture.in_channels)
        said, more = _about_input(plan, known=preprocessing is not None)
        header = WeightHeader(
            architecture=architecture,
            geometry=Geometry(stage_strides=strides),
            preprocessing=preprocessing,
            provenance={"source": "nnssl" if is_nnssl else "nnU-Net", "input": said},
            licence=self.licence,
            citation=NNSSL if is_nnssl else NNUNET,
        )
        return Translation(
            tensors,
            header,
            ignored=part.ignored | training_state(container.extras),
            adapted=adapted,
            notes=(*notes, *more),
        )


def find_encoder(container: Container, plan: NnunetPlan) -> EncoderPart:
    """Find the one residual encoder of a checkpoint.

    Raises:
        WeightsError: If there is none, or more than one of which none is marked as the one to use.
    """
    where = str(container.path)
    tensors, chain = strip_prefixes(container.tensors, WRAPPERS)
    roots = [name.removesuffix(STEM) for name in tensors if _is_stem(name)]
    if not roots:
        raise WeightsError(_no_encoder(container, plan))
    planned = (plan.encoder_key or "").removesuffix("stages").removesuffix(".")
    if plan.encoder_key and f"{planned}." in roots:
        roots = [f"{planned}."]
    elif len(roots) > 1:
        # The decoder of nnU-Net keeps the encoder as an attribute, and so under a second name.
        roots = [root for root in roots if not root.startswith(DECODER)]
    if len(roots) != 1:
        raise WeightsError(
            f"{where} holds several residual encoders: {', '.join(roots) or 'all in a decoder'}. "
            "Save the tensors of the one to use alone, with torch.save(...)."
        )
    root = roots[0]
    if root:
        inside, others = split_prefix(tensors, root)
    else:
        inside = {n: t for n, t in tensors.items() if n.startswith(("stem.", "stages."))}
        others = {n: t for n, t in tensors.items() if n not in inside}
    ignored: dict[str, str] = {}
    for name, tensor in others.items():
        copied = name.removeprefix(f"{DECODER}{root}")
        if copied != name and copied in inside:
            same_tensor(inside[copied], tensor, (root + copied, name), where=where)
            ignored[chain + name] = "the encoder once more, as the decoder keeps it"
        elif name.startswith(DECODER):
            ignored[chain + name] = "decoder of the file's network; only its encoder is used"
        else:
            ignored[chain + name] = "outside the file's encoder, which alone is used"
    return EncoderPart(join_aliases(inside, where=where), chain + root, ignored)


def find_strides(
    tensors: dict[str, Tensor], num_stages: int, plan: NnunetPlan
) -> tuple[tuple[Triple, ...], list[str]]:
    """Find the stride of each stage: from the plan if it fits, else from the names.

    A shortcut that widens is called `skip.1` where it strides, for its pooling is `skip.0`; where
    it does not widen either, no tensor tells.

    Returns:
        The strides, and what a reader of the load report should know of them.
    """
    pooled = {int(hit[1]) for name in tensors if (hit := POOLED_SKIP.fullmatch(name))}
    level = {int(hit[1]) for name in tensors if (hit := PLAIN_SKIP.fullmatch(name))}
    if plan.strides is not None and len(plan.strides) == num_stages:
        striding = {stage for stage, stride in enumerate(plan.strides) if stride != ONES}
        if pooled <= striding and not level & striding:
            return plan.strides, []
    inferred = tuple(
        ALL if stage in pooled or (stage > 0 and stage not in level) else ONES
        for stage in range(num_stages)
    )
    why = (
        "the plan in the file does not fit its tensors" if plan.strides else "the file has no plan"
    )
    note = (
        f"strides were inferred, as 2 on all axes where a stage strides or may do so, for {why}; "
        "if the network was trained with others, give an explicit Geometry"
    )
    return inferred, [note]


def _is_stem(name: str) -> bool:
    return name == STEM or name.endswith(f".{STEM}")


def _no_encoder(container: Container, plan: NnunetPlan) -> str:
    known = "Only residual encoders (ResEnc) are read"
    if any(PLAIN_ENCODER.fullmatch(name) for name in container.tensors):
        return (
            f"{container.path} is of nnU-Net's plain U-Net, whose encoder has no residual blocks. "
            f"{known}: take a checkpoint that was trained with a ResEnc plan."
        )
    network = f"of the network {plan.network}" if plan.network else "not of nnU-Net or nnssl"
    return f"{container.path} is {network}: there is no ...{STEM} in it. {known}."


def _check_function(plan: NnunetPlan, norm: Norm, *, where: str) -> None:
    """Refuse a network that the plan gives another function than ours, by the same tensors."""
    options = plan.options or {}
    nonlinearity = options.get("nonlin")
    if isinstance(nonlinearity, str) and not nonlinearity.endswith("LeakyReLU"):
        raise WeightsError(
            f"{where} was trained with {nonlinearity}; expected LeakyReLU, as all of nnU-Net's "
            "ResEnc presets have it. Load this network in nnU-Net."
        )
    norm_layer = options.get("norm_op")
    if norm == "batch" and isinstance(norm_layer, str) and "BatchNorm" not in norm_layer:
        raise WeightsError(
            f"{where} has running statistics of {norm_layer}; only those of batch norm are used "
            "in the same way. Load this network in nnU-Net."
        )
    for group, name, expected in (
        ("nonlin_kwargs", "negative_slope", NEGATIVE_SLOPE),
        ("norm_op_kwargs", "eps", EPSILON),
    ):
        entries = options.get(group)
        found = entries.get(name, expected) if isinstance(entries, dict) else expected
        if found != expected:
            raise WeightsError(
                f"{where} was trained with {name}={found}; expected {expected}, as all of "
                "nnU-Net's ResEnc presets have it. Load this network in nnU-Net."
            )


def _add_biases(tensors: dict[str, Tensor], shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Give convolutions without bias, if that is all of them, a bias of 0: the same function."""
    biases = [name for name in shapes if name.endswith(".conv.bias")]
    if any(name in tensors for name in biases):
        return {}
    for name in biases:
        tensors[name] = torch.zeros(shapes[name], dtype=tensors["stem.conv.weight"].dtype)
    return dict.fromkeys(biases, "not in the file, whose convolutions have no bias; set to 0")


def _about_input(plan: NnunetPlan, *, known: bool) -> tuple[str, list[str]]:
    """Say what the network was fed, and of it what `Preprocessing` cannot say."""
    said = ", ".join(plan.normalization) or "not stated in the file"
    if plan.spacing_mm:
        said += f"; spacing {' x '.join(f'{mm:g}' for mm in plan.spacing_mm)} mm"
    notes = []
    if not known:
        notes.append(f"what the network was fed is not known well enough to repeat it: {said}")
    if plan.inside_mask:
        notes.append("mean and standard deviation were taken inside a mask of the body alone")
    if plan.is_transposed:
        notes.append(
            f"the network's axes are the axes {plan.axis_order} of the files, which Voxlift does "
            "not permute; its kernels meet other axes than they were trained on"
        )
        said += f"; axes transposed by {plan.axis_order}"
    return said, notes
