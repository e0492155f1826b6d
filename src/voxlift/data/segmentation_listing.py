"""What a data set for segmentation says that it holds, before a voxel is read."""

from dataclasses import dataclass

from voxlift.core.label_scheme import LabelScheme
from voxlift.data.segmentation_cases import SegmentationCase, SegmentationCases, check_ids


@dataclass(frozen=True, eq=False)
class SegmentationListing:
    """The cases of a data set; what it does not say is found when the volumes are read.

    Attributes:
        cases: The volumes with masks.
        labels: What the numbers in the masks mean; None where only the masks themselves tell.
        channel_names: What each channel is; None where only the volumes tell how many there are.
        origin: What errors and logs call the data set.

    Raises:
        DataError: If there is no case, or an id is there twice.
    """

    cases: tuple[SegmentationCase, ...]
    labels: LabelScheme | None = None
    channel_names: tuple[str, ...] | None = None
    origin: str = "cases"

    def __post_init__(self) -> None:
        check_ids(self.cases, self.origin)

    @classmethod
    def of(cls, cases: SegmentationCases) -> "SegmentationListing":
        """List a data set that is complete already."""
        return cls(cases.cases, cases.labels, cases.channel_names, cases.origin)
