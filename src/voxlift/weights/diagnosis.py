"""Say why weights do not fit: what is missing, what is nearest, what is likely wrong."""

import difflib
from collections.abc import Collection, Iterable

from pydantic import BaseModel

from voxlift.core.report import LoadReport, group_by_reason
from voxlift.weights.foreign.swin_file import NEW_MERGING
from voxlift.weights.match import NOT_IN_FILE
from voxlift.weights.target import BACKBONE_PREFIX

REASONS_SHOWN = 5
NEAREST_SHOWN = 6
NAMES_TO_SKIP = 4
WRAPPERS = ("module.", "_orig_mod.", "model.", "network.", "encoder.", "state_dict.")


def field_differences(found: BaseModel, wanted: BaseModel) -> dict[str, str]:
    """Compare two descriptions of the same kind, field by field.

    Args:
        found: What the file says.
        wanted: What the model says.
    """
    differences = {}
    for name in type(found).model_fields:
        theirs, ours = getattr(found, name), getattr(wanted, name)
        if theirs != ours:
            differences[name] = f"{theirs} in the file, {ours} in the model"
    return differences


def refusal(report: LoadReport, *, min_coverage: float) -> str | None:
    """Write the error for weights that do not fit; None if they do.

    Args:
        report: What would become of each tensor.
        min_coverage: Share of the backbone's parameters that has to be loaded.
    """
    merging = report.architecture.get("patch_merging")
    if merging is not None:
        return (
            f"{report.source} was not loaded and the model is unchanged: its tensors would compute "
            f"another function there, for patch_merging is {merging}. Build the network from the "
            "file, with create_backbone(weights=FILE); if it was trained with MONAI 1.5 or later, "
            f"declare that, as in {NEW_MERGING}:FILE."
        )
    if report.is_complete and report.coverage >= min_coverage:
        return None
    lines = [
        f"{report.source} was not loaded and the model is unchanged: it would fill "
        f"{report.coverage:.1%} of the backbone's {report.num_parameters:,} parameters "
        f"(at least {min_coverage:.1%} wanted), with {len(report.missing)} tensors of the model "
        f"missing and {len(report.unused)} of the file unused."
    ]
    lines += _at_most(REASONS_SHOWN, "missing", group_by_reason(report.missing))
    lines += _at_most(REASONS_SHOWN, "unused", group_by_reason(report.unused))
    absent = [name for name, why in report.missing.items() if why == NOT_IN_FILE]
    lines += [f"  nearest: {line}" for line in nearest_names(absent, report.unused)]
    lines.append(f"Likely cause: {likely_cause(report)}")
    lines.append(f"At the command line: {_other_start(report)}")
    if report.coverage > 0:
        lines.append(
            f"In Python, if that is meant: load_weights(..., {_consent(report, min_coverage)}"
        )
    return "\n".join(lines)


def likely_cause(report: LoadReport) -> str:
    """Name the likeliest reason for which weights do not fit, and what to do about it."""
    shaping = _shaping(report)
    channels = report.architecture.get("in_channels")
    wrapper = _wrapper(report.unused)
    reasons = [*report.missing.values(), *report.unused.values()]
    if shaping:
        differences = "; ".join(f"{name} is {how}" for name, how in shaping.items())
        return (
            f"the file was saved from another network ({differences}). Build the network that the "
            "file describes, as create_backbone(weights=FILE) does, or choose another file."
        )
    if channels is not None and any("shape (" in why for why in report.missing.values()):
        return (
            f"the input channels differ ({channels}). Kernels are adapted from or to one channel "
            "only: build the model for the file's channels, or skip the first layer and train it "
            "anew."
        )
    if any("head" in why for why in reasons):
        return (
            "the heads differ, and head='required' was asked for. Build the model for the file's "
            "classes, or load with head='same'."
        )
    if report.is_complete:
        return "more of the backbone was skipped than min_coverage allows."
    if wrapper and report.coverage == 0:
        return (
            f"every tensor of the file begins with {wrapper!r}, which the model's do not: it was "
            "saved from a wrapped model. Save the model itself with voxlift.save_weights(...)."
        )
    if report.coverage == 0:
        return "the file belongs to another family of networks: no name agrees."
    return (
        "the file says it fits this model, but its tensors do not: it was edited, or the model "
        "was changed after it was built (as by another norm or a new layer)."
    )


def nearest_names(names: Iterable[str], candidates: Collection[str]) -> list[str]:
    """Pair names with those that look most like them, for the eye to find a renaming."""
    lines = []
    for name in names:
        close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
        if close:
            lines.append(f"the model's {name} and the file's {close[0]}")
        if len(lines) == NEAREST_SHOWN:
            break
    return lines


def _wrapper(names: Iterable[str]) -> str | None:
    names = [name.removeprefix(BACKBONE_PREFIX) for name in names]
    return next((w for w in WRAPPERS if names and all(n.startswith(w) for n in names)), None)


def _at_most(count: int, kind: str, lines: list[str]) -> list[str]:
    shown = [f"  {kind}: {line}" for line in lines[:count]]
    more = len(lines) - count
    return shown + ([f"  {kind}: and more, for {more} other reasons"] if more > 0 else [])


def _other_start(report: LoadReport) -> str:
    """What can be done where nothing can be left out by name."""
    if _shaping(report):
        return (
            "leave out --backbone, --width, --stem and --norm, so that the network is the file's; "
            "or give --weights another start, or scratch."
        )
    if report.coverage == 0:
        return "give --weights another start, or scratch: none of these would be used."
    return "give --weights another start, or scratch; parts of one are not left out there."


def _shaping(report: LoadReport) -> dict[str, str]:
    """Differences that change the shapes of more than the first layer."""
    return {name: how for name, how in report.architecture.items() if name != "in_channels"}


def _consent(report: LoadReport, min_coverage: float) -> str:
    """How to load the weights all the same: the arguments, and what they do."""
    amiss = [*report.missing, *report.unused]
    arguments, effects = [], []
    if amiss:
        few = len(amiss) <= NAMES_TO_SKIP
        which = f"({', '.join(map(repr, amiss))},)" if few else "(NAMES OF MODULES OR TENSORS,)"
        arguments.append(f"skip={which}")
        effects.append("leaves out what does not fit")
    if report.coverage < min_coverage:
        arguments.append(f"min_coverage={int(report.coverage * 100) / 100}")
        effects.append("accepts the share that is left")
    return f"{', '.join(arguments)}) {' and '.join(effects)}."
