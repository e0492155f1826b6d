"""Say why weights do not fit: what is missing, what is nearest, what is likely wrong."""

import difflib
from collections.abc import Collection, Iterable

from pydantic import BaseModel

from voxlift.core.report import LoadReport, group_by_reason
from voxlift.weights.target import BACKBONE_PREFIX

NEAREST_SHOWN = 6
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
    if report.is_complete and report.coverage >= min_coverage:
        return None
    lines = [
        f"{report.source} was not loaded and the model is unchanged: it would fill "
        f"{report.coverage:.1%} of the backbone's {report.num_parameters:,} parameters "
        f"(at least {min_coverage:.1%} wanted), with {len(report.missing)} tensors of the model "
        f"missing and {len(report.unused)} of the file unused."
    ]
    lines += [f"  missing: {line}" for line in group_by_reason(report.missing)]
    lines += [f"  unused: {line}" for line in group_by_reason(report.unused)]
    absent = [name for name, why in report.missing.items() if why == "not in the file"]
    lines += [f"  nearest: {line}" for line in nearest_names(absent, report.unused)]
    lines.append(f"Likely cause: {likely_cause(report)}")
    tops = dict.fromkeys(_top(name) for name in [*report.missing, *report.unused])
    if tops:
        lines.append(
            f"If that is meant, name what to leave out: skip=({', '.join(map(repr, tops))},)"
            + (", and lower min_coverage." if report.coverage < min_coverage else ".")
        )
    else:
        lines.append(f"If that is meant, pass min_coverage={int(report.coverage * 100) / 100}.")
    return "\n".join(lines)


def likely_cause(report: LoadReport) -> str:
    """Name the likeliest reason for which weights do not fit, and what to do about it."""
    shaping = {k: v for k, v in report.architecture.items() if k != "in_channels"}
    channels = report.architecture.get("in_channels")
    matched = report.exact or report.adapted
    prefix = _common_prefix(report.unused)
    if shaping:
        differences = "; ".join(f"{name} is {how}" for name, how in shaping.items())
        return (
            f"the file was saved from another network ({differences}). Build the model from the "
            "file, create_backbone(..., weights=FILE) without these options, or choose a file "
            "that has them."
        )
    if any(_is_input_convolution(name) for name in report.missing) and channels is not None:
        return (
            f"the input channels differ ({channels}). Kernels are adapted from or to one channel "
            "only: build the model for the file's channels, or skip conv1 and train it anew."
        )
    if prefix and not matched:
        return (
            f"every tensor of the file begins with {prefix!r}, which the model's do not: it was "
            "saved from a wrapped model. Save the model itself with voxlift.save_weights(...)."
        )
    if report.unused and not matched:
        return "the file belongs to another family of networks: no name agrees."
    if report.is_complete:
        return "more of the backbone was skipped than min_coverage allows."
    if report.missing and all(name in report.missing for name in report.unused):
        return "the model has a head that the file was not saved with."
    if any("head" in why for why in [*report.missing.values(), *report.unused.values()]):
        return (
            "the heads differ, and head='required' was asked for. Build the model for the file's "
            "classes, or load with head='same'."
        )
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


def _is_input_convolution(name: str) -> bool:
    return name.removeprefix(BACKBONE_PREFIX) == "conv1.weight"


def _common_prefix(names: Iterable[str]) -> str | None:
    names = [name.removeprefix(BACKBONE_PREFIX) for name in names]
    return next((w for w in WRAPPERS if names and all(n.startswith(w) for n in names)), None)


def _top(name: str) -> str:
    return name.removeprefix(BACKBONE_PREFIX).split(".")[0]
