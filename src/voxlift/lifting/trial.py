"""Prove on a small volume that a network made 3D still is the 2D network.

Layers are known by their types; what a module's own `forward` does between them is not. So both
networks run, the 3D one with kernels one slice deep and on a volume of equal slices: every module
then has to give what it gave in 2D, in each slice.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from voxlift.core.errors import ConfigError

NUM_SLICES = 3
TOLERANCE = 1e-3
"""Largest difference, as a share of the largest number: rounding gives much less, errors more."""

LIBRARIES = ("torch.nn.", "voxlift.lifting.")
"""Where layers come from whose forward is not at fault."""


@dataclass
class Trace:
    """What each module gave, in the order in which they finished, and which failed if one did.

    Args:
        outputs: Path of the module, that of the module that called it, and the tensors returned.
        running: Paths of the modules that were running, the innermost last.
        error: What ended the run early.
    """

    outputs: list[tuple[str, str, list[Tensor]]] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    error: Exception | None = None


def check_same_function(
    volume_network: nn.Module, plane: nn.Module, image: Tensor, *, paths: Sequence[str]
) -> None:
    """Compare a 3D network with the 2D one that it was made of, on equal slices.

    Args:
        volume_network: Made of `plane` with kernels and windows one slice deep.
        plane: The 2D network.
        image: What the 2D network takes.
        paths: Modules to compare, by their names in both networks.

    Raises:
        ConfigError: Naming the first module that fails, or gives something else than in 2D.
    """
    wanted = trace(plane, image, paths=paths)
    if wanted.error is not None:
        raise ConfigError(
            f"The 2D network itself fails at {describe(plane, _where(wanted)[0])} on a trial image "
            f"of shape {tuple(image.shape)}: {wanted.error}. Give an image that it takes as image=."
        ) from wanted.error
    volume = image.unsqueeze(2).expand(-1, -1, NUM_SLICES, -1, -1)
    found = trace(volume_network, volume, paths=paths)
    for (path, caller, ours), (other, _, theirs) in zip(
        found.outputs, wanted.outputs, strict=False
    ):
        if path != other or len(ours) != len(theirs):
            problem: str | None = f"runs where {describe(plane, other)} ran in 2D"
        else:
            differences = map(_difference, ours, theirs)
            problem = next((difference for difference in differences if difference), None)
        if problem:
            raise ConfigError(
                f"Made 3D, {describe(plane, path)} {problem}. {_remedy(plane, path, caller)}"
            )
    _check_success(found, volume_network, volume)
    if not wanted.outputs[-1][-1]:
        raise ConfigError(
            "The 2D network returns no tensor, so it cannot be proved that its 3D form computes "
            "the same. Convert the part of it that does, or convert with check=False."
        )


def check_runs(network: nn.Module, volume: Tensor) -> None:
    """Run a network on a volume.

    Raises:
        ConfigError: If it fails, naming the module.
    """
    paths = [path for path, _ in network.named_modules()]
    _check_success(trace(network, volume, paths=paths, keep_outputs=False), network, volume)


def trace(
    network: nn.Module, volume: Tensor, *, paths: Sequence[str], keep_outputs: bool = True
) -> Trace:
    """Run a network in evaluation mode and write down what each module gives."""
    record = Trace()
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(_evaluation(network))
        for path in paths:
            module = network.get_submodule(path)
            stack.enter_context(_recording(record, module, path, keep_outputs=keep_outputs))
        try:
            network(volume)
        # A module of someone else's may fail in any way.
        except Exception as error:
            record.error = error
    return record


def describe(network: nn.Module, path: str) -> str:
    """Name a module by its path and type."""
    kind = type(network.get_submodule(path)).__name__
    return f"{path} ({kind})" if path else f"the network itself ({kind})"


def _check_success(record: Trace, network: nn.Module, volume: Tensor) -> None:
    if record.error is not None:
        path, caller = _where(record)
        raise ConfigError(
            f"Made 3D, {describe(network, path)} fails in a trial on a volume of shape "
            f"{tuple(volume.shape)}: {record.error}. {_remedy(network, path, caller)}"
        ) from record.error


def _where(record: Trace) -> tuple[str, str]:
    """Paths of the module that failed, and of the one that called it."""
    caller, path = ["", "", *record.running][-2:]
    return path, caller


def _remedy(network: nn.Module, path: str, caller: str) -> str:
    """Say what to change: not a known layer, but the module that feeds it."""
    module = network.get_submodule(path)
    is_layer = type(module).__module__.startswith(LIBRARIES) and not any(module.children())
    return (
        f"What {describe(network, caller if is_layer else path)} does in its own forward does not "
        "fit such volumes: change it in the 2D network (pool by a layer such as "
        "nn.AdaptiveAvgPool2d instead of a function), convert the part before it, or give an image "
        "of the size that the network is for as image=."
    )


@contextlib.contextmanager
def _evaluation(network: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode, and back as it was."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def _recording(
    record: Trace, module: nn.Module, path: str, *, keep_outputs: bool
) -> Iterator[None]:
    def start(*_: object) -> None:
        record.running.append(path)

    def finish(_: nn.Module, __: object, output: object) -> None:
        record.running.pop()
        caller = record.running[-1] if record.running else ""
        if keep_outputs:
            # Clones, for the next module may work in place.
            tensors = [tensor.clone() for tensor in _tensors_in(output)]
            record.outputs.append((path, caller, tensors))

    handles = [module.register_forward_pre_hook(start), module.register_forward_hook(finish)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors_in(output: object) -> list[Tensor]:
    """Collect the tensors that a module returned, alone or in lists and dictionaries."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        return [tensor for value in output.values() for tensor in _tensors_in(value)]
    if isinstance(output, list | tuple):
        return [tensor for value in output for tensor in _tensors_in(value)]
    return []


def _difference(ours: Tensor, theirs: Tensor) -> str | None:
    """Say in what an output is not the 2D one, in each slice if it has slices; None if it is."""
    shape = tuple(theirs.shape)
    if theirs.ndim == 4:
        theirs = theirs.unsqueeze(2)
    fits = theirs.ndim == ours.ndim and all(
        our == their or (axis == 2 and ours.ndim == 5)
        for axis, (our, their) in enumerate(zip(ours.shape, theirs.shape, strict=True))
    )
    if not fits:
        return f"gives the shape {tuple(ours.shape)} where it gave {shape} in 2D"
    difference = (ours - theirs).abs().max().nan_to_num(0.0)
    if difference > TOLERANCE * theirs.abs().max().clamp(min=1e-6):
        return (
            "gives other numbers than in 2D on a volume of equal slices (they differ by up to "
            f"{float(difference):.3g})"
        )
    return None
