"""Find the backbone in whatever module weights are loaded into or saved from."""

from dataclasses import dataclass

from torch import Tensor, nn

from voxlift.core.architecture import Architecture
from voxlift.core.errors import WeightsError
from voxlift.core.geometry import Geometry
from voxlift.weights.match import INPUT_LAYERS, Adapter

BACKBONE_PREFIX = "backbone."
COMPILED = "_orig_mod"


@dataclass(frozen=True)
class StartTerms:
    """Under what terms a backbone's start came; what is trained from it is bound by them.

    Args:
        name: Of the file.
        sha256: Of the file.
        licence: Of the start; None if it is not known.
        citation: What to cite for it.
    """

    name: str
    sha256: str
    licence: str | None
    citation: str | None


@dataclass(frozen=True)
class Target:
    """A model as weight files see it.

    Args:
        backbone: The backbone itself.
        architecture: Of its backbone.
        geometry: Of its backbone.
        prefix: What the names of the backbone's tensors begin with: nothing, or `backbone.`.
        state: The model's tensors, by names that do not depend on how it is wrapped.
        own_names: From those names to the ones of the model's `state_dict()`.
        parameters: Names of the backbone's parameters, as in `state`.
        input_layers: Layers of the backbone that take the input, by the backbone's own names.
        adapter: What the backbone itself makes of tensors that do not fit: its `adapt_tensor`.
        head_groups: Modules behind the backbone that are of use without those named after them.
    """

    backbone: nn.Module
    architecture: Architecture
    geometry: Geometry
    prefix: str
    state: dict[str, Tensor]
    own_names: dict[str, str]
    parameters: tuple[str, ...]
    input_layers: tuple[str, ...] = INPUT_LAYERS
    adapter: Adapter | None = None
    head_groups: tuple[str, ...] = ()


def find_target(model: nn.Module) -> Target:
    """Find the backbone: the model itself, or what it holds as `.backbone`.

    A module that `torch.compile` has wrapped is looked through.

    Raises:
        WeightsError: If there is none, or the model's tensors are not there yet (meta device).
    """
    prefix, backbone = "", model
    shape = _shape(model)
    if shape is None:
        prefix, backbone = BACKBONE_PREFIX, getattr(model, "backbone", model)
        shape = _shape(backbone)
    if shape is None:
        raise WeightsError(
            f"{type(model).__name__} is no Voxlift backbone and holds none as `.backbone`: it has "
            "no architecture and geometry to compare with a file. Build it with "
            "voxlift.create_backbone(...) or voxlift.create_model(...)."
        )
    own_names = {_plain(name): name for name in model.state_dict()}
    state = {_plain(name): tensor for name, tensor in model.state_dict().items()}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor) or tensor.is_meta:
            raise WeightsError(
                f"{name} of the model is no tensor with numbers (it is on the meta device, or an "
                "extra state). Build the model on a real device first."
            )
    names = {_plain(name) for name, _ in model.named_parameters()}
    return Target(
        backbone=getattr(backbone, COMPILED, backbone),
        architecture=shape[0],
        geometry=shape[1],
        prefix=prefix,
        state=state,
        own_names=own_names,
        parameters=tuple(n for n in state if n in names and n.startswith(prefix)),
        input_layers=getattr(backbone, "input_layers", INPUT_LAYERS),
        adapter=getattr(backbone, "adapt_tensor", None),
        head_groups=tuple(getattr(model, "head_groups", ())),
    )


def start_terms(backbone: nn.Module) -> StartTerms | None:
    """Tell the terms of the start that was loaded into a backbone; None from scratch."""
    terms = getattr(backbone, "start_terms", None)
    return terms if isinstance(terms, StartTerms) else None


def _shape(module: object) -> tuple[Architecture, Geometry] | None:
    """Architecture and geometry of a module that is a backbone, else None."""
    architecture = getattr(module, "architecture", None)
    geometry = getattr(module, "geometry", None)
    if isinstance(architecture, Architecture) and isinstance(geometry, Geometry):
        return architecture, geometry
    return None


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != COMPILED)
