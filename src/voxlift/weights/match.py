"""Lay the tensors of a weight file against those of a network, and account for every one.

Nothing here changes a model or raises on a mismatch: the outcome is data, for loading to act on
and for inspection to show.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch
from torch import Tensor

from voxlift.core.errors import WeightsError

Value = TypeVar("Value")

HeadRule = Literal["same", "required", "none"]
"""Take of the file's head what has the model's names and shapes; insist on all; or leave it."""

ChannelRule = Literal["sum", "mean"]
"""From several input channels to one: add their kernels up, or average them as the paper does."""

Adapter = Callable[[str, Tensor, Mapping[str, Tensor]], tuple[Tensor, str] | None]
"""What a backbone makes of a tensor that does not fit: of its name, the backbone's own tensor and
all of the file's, by the backbone's names, a tensor to load and how it was made; or nothing."""

INPUT_LAYERS = ("conv1",)
NOT_IN_FILE = "not in the file"
BATCH_COUNTER = "num_batches_tracked"


@dataclass
class Match:
    """What becomes of each tensor, by the model's names; see `LoadReport` for the kinds.

    Args:
        tensors: What goes into the model, in the model's shapes and dtypes.
        head_parts: Which of the groups that the head was told apart into are taken.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    exact: list[str] = field(default_factory=list)
    adapted: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    head_parts: list[str] = field(default_factory=list)

    def coverage(self, target: Mapping[str, Tensor], parameters: Collection[str]) -> float:
        """Share of the named parameters that are among the tensors to load, by their numbers."""
        total = sum(target[name].numel() for name in parameters)
        loaded = sum(target[name].numel() for name in parameters if name in self.tensors)
        return loaded / total if total else 0.0


def match_tensors(
    source: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    *,
    prefix: str = "",
    head: HeadRule = "same",
    head_groups: Sequence[str] = (),
    skip: Iterable[str] = (),
    channels: ChannelRule = "sum",
    input_layers: Collection[str] = INPUT_LAYERS,
    adapted: Mapping[str, str] | None = None,
    adapter: Adapter | None = None,
) -> Match:
    """Decide for each tensor of the file and of the model what becomes of it.

    Args:
        source: The file's tensors. Those of the backbone are bare or begin with `backbone.`.
        target: The model's `state_dict()`.
        prefix: What the backbone's tensors begin with in the model; everything else is its head.
        head: What to do with the file's head.
        head_groups: Modules of the head that are of use without those named after them; what is in
            two of them belongs to the later. By the rule `same` they are taken one by one, up to
            the first that does not fit. A head without groups is taken as a whole or not at all.
        skip: Tensors, or modules with all below them, to leave alone, by the model's names (the
            prefix of the backbone may be left out).
        channels: How several input channels become one.
        input_layers: Layers of the backbone that take the input, by their names.
        adapted: Tensors of the file that its format changed already, and how.
        adapter: What the backbone itself makes of tensors that are missing or of another shape.

    Raises:
        WeightsError: If an entry of `skip` names nothing in the file nor in the model.
    """
    changed = _rename(adapted or {}, prefix=prefix)[0]
    source, head_names = _rename(source, prefix=prefix)
    inputs = {f"{prefix}{layer}.weight" for layer in input_layers}
    if prefix:
        head_names |= {name for name in target if not name.startswith(prefix)}
    match = Match()
    for name in _skipped_names(skip, [*target, *source], prefix=prefix):
        match.skipped[name] = "named by the caller"
    of_source = {name: t for name, t in source.items() if name not in match.skipped}
    of_target = {name: t for name, t in target.items() if name not in match.skipped}

    theirs = {name: of_source[name] for name in of_source if name in head_names}
    ours = {name: of_target[name] for name in of_target if name in head_names}
    _match_head(match, theirs, ours, rule=head, groups=head_groups)
    for name, wanted in of_target.items():
        if name in head_names or _adapt(match, name, of_source, wanted, prefix, adapter):
            continue
        if name in of_source:
            rule = channels if name in inputs else None
            _match_one(match, name, of_source[name], wanted, channels=rule)
        elif name.endswith(BATCH_COUNTER):
            match.tensors[name] = torch.zeros_like(wanted)
            match.adapted[name] = "not in the file, which is common; set to 0"
        else:
            match.missing[name] = NOT_IN_FILE
    for name in of_source:
        if name in of_target or name in head_names:
            continue
        if name.endswith(BATCH_COUNTER):
            match.ignored[name] = "a counter, for which the model has no place"
        else:
            match.unused[name] = "the model has no such tensor"
    _tell_of_changes(match, changed)
    return match


def adapt_channels(
    kernel: Tensor, in_channels: int, *, rule: ChannelRule = "sum"
) -> tuple[Tensor, str] | None:
    """Fit the kernel of the first convolution to another number of input channels.

    From several channels to one the kernels are summed: on a volume whose channels are equal, the
    function is the same. From one to several the kernel is shared out evenly: on equal channels,
    again the same function. By the rule `mean` several kernels are averaged instead, which divides
    the response to equal channels by their number.

    Shape:
        `(out, in, *kernel)` -> `(out, in_channels, *kernel)`.

    Returns:
        The new kernel and how it was made; None where neither number of channels is one.

    Source:
        The public code of arXiv 2201.01426 averages the channels.
    """
    found = kernel.shape[1]
    if in_channels == 1:
        one = kernel.sum(dim=1, keepdim=True)
        if rule == "mean":
            return one / found, f"{found} input channels averaged into one"
        return one, f"{found} input channels summed into one"
    if found == 1:
        repeats = [1, in_channels] + [1] * (kernel.dim() - 2)
        return (
            kernel.repeat(repeats) / in_channels,
            f"one input channel shared out evenly over {in_channels}",
        )
    return None


def _adapt(
    match: Match,
    name: str,
    source: Mapping[str, Tensor],
    wanted: Tensor,
    prefix: str,
    adapter: Adapter | None,
) -> bool:
    """Ask the backbone for what does not fit; say whether it had an answer."""
    fits = name in source and source[name].shape == wanted.shape
    if adapter is None or fits or not name.startswith(prefix):
        return False
    bare = {key.removeprefix(prefix): t for key, t in source.items() if key.startswith(prefix)}
    made = adapter(name.removeprefix(prefix), wanted, bare)
    if made is None:
        return False
    match.tensors[name], match.adapted[name] = made
    return True


def _tell_of_changes(match: Match, changed: Mapping[str, str]) -> None:
    """Count as adapted what the file's format changed before it was laid against the model."""
    for name, how in changed.items():
        if name in match.exact:
            match.exact.remove(name)
            match.adapted[name] = how
        elif name in match.adapted:
            match.adapted[name] = f"{how}; {match.adapted[name]}"


def _rename(source: Mapping[str, Value], *, prefix: str) -> tuple[dict[str, Value], set[str]]:
    """Give the file's tensors the model's names; also return which of them belong to a head."""
    own = "backbone."
    if not any(name.startswith(own) for name in source):
        return {prefix + name: tensor for name, tensor in source.items()}, set()
    renamed, heads = {}, set()
    for name, tensor in source.items():
        if name.startswith(own):
            renamed[prefix + name.removeprefix(own)] = tensor
        else:
            renamed[name] = tensor
            heads.add(name)
    return renamed, heads


def _skipped_names(skip: Iterable[str], names: Iterable[str], *, prefix: str) -> list[str]:
    names = list(dict.fromkeys(names))
    found: dict[str, None] = {}
    for entry in [skip] if isinstance(skip, str) else skip:
        whole = {entry, prefix + entry}
        below = tuple(f"{start}." for start in whole)
        hits = [name for name in names if name in whole or name.startswith(below)]
        if not hits:
            tops = dict.fromkeys(name.removeprefix(prefix).split(".")[0] for name in names)
            raise WeightsError(
                f"skip names {entry!r}, which is neither in the file nor in the model; nothing "
                f"was loaded. Name a tensor or a module, such as {', '.join(tops)}."
            )
        found.update(dict.fromkeys(hits))
    return list(found)


def _match_head(
    match: Match,
    theirs: Mapping[str, Tensor],
    ours: Mapping[str, Tensor],
    *,
    rule: HeadRule,
    groups: Sequence[str],
) -> None:
    """Take the file's head group by group, up to the first that does not fit.

    Each is taken as a whole or not at all, for half of one would answer nonsense; and so is a head
    without groups, or one that is required.
    """
    groups = groups if rule == "same" else ()
    rest = "the rest of the head"
    left: str | None = None
    for group in [*groups, rest]:
        found, wanted = (
            {name: t for name, t in side.items() if _group_of(name, groups, rest) == group}
            for side in (theirs, ours)
        )
        if rule != "none" and left is None and _fits(found, wanted):
            for name, tensor in wanted.items():
                _match_one(match, name, found[name], tensor, channels=None)
            match.head_parts += [group] if wanted and groups else []
        else:
            unlike = (
                f"{left}, which it stands on, is left" if left else "other parts of it do not fit"
            )
            _leave_head(match, found, wanted, rule=rule, unlike=unlike)
            left = left or group


def _group_of(name: str, groups: Sequence[str], rest: str) -> str:
    """Find the last of the groups that a tensor is in."""
    return next((group for group in reversed(groups) if name.startswith(f"{group}.")), rest)


def _fits(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> bool:
    same = theirs.keys() == ours.keys()
    return same and all(theirs[name].shape == ours[name].shape for name in ours)


def _leave_head(
    match: Match,
    theirs: Mapping[str, Tensor],
    ours: Mapping[str, Tensor],
    *,
    rule: HeadRule,
    unlike: str,
) -> None:
    """Say of each tensor of a head why it is left; `unlike` is said of what would fit alone."""
    for name, wanted in ours.items():
        if rule == "none":
            why = "head left as it is, as asked"
        elif name not in theirs:
            why = "head left as it is: the file has none such"
        elif theirs[name].shape == wanted.shape:
            why = f"head left as it is: {unlike}"
        else:
            found = tuple(theirs[name].shape)
            why = f"head left as it is: {found} in the file, {tuple(wanted.shape)} in the model"
        (match.missing if rule == "required" else match.ignored)[name] = why
    for name in theirs:
        if name not in ours:
            unused = match.unused if rule == "required" else match.ignored
            unused[name] = "head of the file, for which the model has no place"


def _match_one(
    match: Match, name: str, found: Tensor, wanted: Tensor, *, channels: ChannelRule | None
) -> None:
    how = None
    if found.shape != wanted.shape and channels is not None:
        only_channels = found.dim() == wanted.dim() and (
            found.shape[0] == wanted.shape[0] and found.shape[2:] == wanted.shape[2:]
        )
        if only_channels:
            fitted = adapt_channels(found.float(), wanted.shape[1], rule=channels)
            found, how = fitted or (found, None)
    if found.shape != wanted.shape:
        match.missing[name] = (
            f"shape {tuple(found.shape)} in the file, {tuple(wanted.shape)} in the model"
        )
        return
    # Files that were cast to half precision as a whole have their counters cast too.
    counts = name.endswith(BATCH_COUNTER)
    if found.is_floating_point() != wanted.is_floating_point() and not counts:
        match.missing[name] = f"{found.dtype} in the file, {wanted.dtype} in the model"
        return
    value = found.to(wanted.dtype)
    if value.is_floating_point() and not torch.isfinite(value).all():
        match.missing[name] = f"too large for {wanted.dtype}, the model's precision"
        return
    match.tensors[name] = value
    if how is None:
        match.exact.append(name)
    else:
        match.adapted[name] = how
