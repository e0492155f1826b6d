"""What a Voxlift weight file says about its tensors, as JSON under one metadata key."""

import json
from importlib.metadata import PackageNotFoundError, version
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from voxlift.core.architecture import Architecture
from voxlift.core.errors import WeightsError
from voxlift.core.geometry import Geometry
from voxlift.core.preprocessing import Preprocessing

HEADER_KEY = "voxlift"
FORMAT_VERSION = 3


class HeadDescription(BaseModel):
    """What the part behind the backbone answers, so that its numbers can be read.

    Args:
        task: Such as `classify` or `pretrain`.
        num_classes: Classes that the head tells apart.
        class_names: Their names in the order of the outputs; empty if nobody named them.
        threshold: Probability from which on a case counts as positive, chosen on validation.
        settings: Whatever else the task needs to be applied again.

    Raises:
        ValueError: If there are names, but not one for each class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    num_classes: int = Field(ge=1)
    class_names: tuple[str, ...] = ()
    threshold: float | None = Field(default=None, ge=0, le=1)
    settings: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_name_a_class(self) -> Self:
        if self.class_names and len(self.class_names) != self.num_classes:
            raise ValueError(
                f"there are {self.num_classes} classes and {len(self.class_names)} class names."
            )
        return self


def installed_version() -> str:
    """Version of the installed package, for the record."""
    try:
        return version("voxlift")
    except PackageNotFoundError:
        return "unknown"


class WeightHeader(BaseModel):
    """Everything one has to know about the tensors beside it.

    Args:
        architecture: Rebuilds the tensors of the backbone.
        geometry: The function that the tensors were trained in.
        preprocessing: What was done to the input; None if nobody said.
        head: What the part behind the backbone answers; None for a backbone alone.
        provenance: Where the numbers come from: data, recipe, command, seed, accuracy, date ...
        licence: Under what terms they may be used.
        citation: What to cite.
        format_version: Of this header.
        voxlift_version: Of the package that wrote it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Architecture
    geometry: Geometry
    preprocessing: Preprocessing | None = None
    head: HeadDescription | None = None
    provenance: dict[str, JsonValue] = Field(default_factory=dict)
    licence: str | None = None
    citation: str | None = None
    format_version: int = FORMAT_VERSION
    voxlift_version: str = Field(default_factory=installed_version)

    def to_json(self) -> str:
        """Write the header as the text that stands in the file, always in the same order."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, allow_nan=False)


def parse_header(text: str, *, where: str) -> WeightHeader:
    """Read a header from the text that stands in a file.

    Args:
        text: JSON, as `WeightHeader.to_json` writes it.
        where: The file, for the error.

    Raises:
        WeightsError: If it is no JSON, comes from a newer Voxlift, or lacks or adds fields.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            f"{where}: the Voxlift header is no JSON ({error}). The file was edited or damaged; "
            "fetch it again."
        ) from error
    found = fields.get("format_version") if isinstance(fields, dict) else None
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise WeightsError(
            f"{where} has a header of version {found}; this Voxlift ({installed_version()}) reads "
            f"versions up to {FORMAT_VERSION}. Update Voxlift."
        )
    try:
        return WeightHeader.model_validate_json(text)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'header'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise WeightsError(
            f"{where}: the Voxlift header does not hold together ({problems}). The file was "
            "edited, or written by something else than save_weights."
        ) from error
