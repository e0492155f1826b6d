"""What became of every tensor when weights were loaded."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

NAMES_SHOWN = 4


class LoadReport(BaseModel):
    """What became of every tensor of a network and of a weight file.

    Names are those of the model's `state_dict()`; a tensor that only the file has is called what
    the model would call it. Each of the mappings goes from a name to how or why.

    Args:
        source: The file, or the name of a bundled start.
        sha256: Of the file.
        exact: Loaded as they are (a change of precision alone counts as exact).
        adapted: Loaded after a change, such as other input channels, or set to a neutral value.
        skipped: Left alone because the caller named them.
        ignored: Known to be of no use here: heads for other classes, optimizer state.
        missing: Tensors of the model for which the file has no fitting one.
        unused: Tensors of the file for which the model has no place.
        coverage: Share of the backbone's parameters that were loaded, 0 to 1.
        num_parameters: Parameters of the backbone, in numbers.
        architecture: Differences between the file's architecture and the model's.
        geometry: Differences of strides, pooling and dilations. They change no tensor, only what
            is computed with them, and are the method's normal use.
        preprocessing: Differences between what the file's network was fed and what the model is.
        licence: Under what terms the weights may be used; None if the file does not say.
        notes: Whatever else a reader should know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    sha256: str
    exact: tuple[str, ...] = ()
    adapted: dict[str, str] = Field(default_factory=dict)
    skipped: dict[str, str] = Field(default_factory=dict)
    ignored: dict[str, str] = Field(default_factory=dict)
    missing: dict[str, str] = Field(default_factory=dict)
    unused: dict[str, str] = Field(default_factory=dict)
    coverage: float = Field(ge=0, le=1)
    num_parameters: int = Field(ge=0)
    architecture: dict[str, str] = Field(default_factory=dict)
    geometry: dict[str, str] = Field(default_factory=dict)
    preprocessing: dict[str, str] = Field(default_factory=dict)
    licence: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing or unused but what was skipped or ignored."""
        return not self.missing and not self.unused

    def summary(self) -> str:
        """Say in a few lines what was loaded, what was not and what differs."""
        loaded = f"{self.coverage:.1%} of the backbone's {self.num_parameters:,} parameters"
        lines = [f"{self.source} (sha256 {self.sha256[:12]}): {loaded} loaded."]
        if self.exact:
            lines.append(f"  exact: {len(self.exact)} tensors")
        for kind in ("adapted", "skipped", "ignored", "missing", "unused"):
            lines += [f"  {kind}: {line}" for line in group_by_reason(getattr(self, kind))]
        for kind in ("architecture", "geometry", "preprocessing"):
            differences: dict[str, str] = getattr(self, kind)
            lines += [f"  {kind} differs: {name}: {how}" for name, how in differences.items()]
        lines += [f"  note: {note}" for note in self.notes]
        lines.append(f"  licence: {self.licence or 'not stated in the file'}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()


def group_by_reason(names: Mapping[str, str]) -> list[str]:
    """Put names that share a reason on one line, and not all of them where they are many."""
    groups: dict[str, list[str]] = {}
    for name, reason in names.items():
        groups.setdefault(reason, []).append(name)
    lines = []
    for reason, members in groups.items():
        more = len(members) - NAMES_SHOWN
        shown = ", ".join(members[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
        lines.append(f"{shown} ({reason})")
    return lines
