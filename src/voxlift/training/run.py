"""What a run leaves in the caller's hands."""

import signal
from dataclasses import dataclass, field
from pathlib import Path

from voxlift.inference.classification import ClassificationReport
from voxlift.inference.detection_report import DetectionReport
from voxlift.inference.segmentation_report import SegmentationReport


@dataclass(frozen=True)
class Run:
    """A run, finished or interrupted.

    Args:
        folder: Its run folder.
        model_path: The trained model; None if the run was interrupted.
        metrics: Final metrics by name, such as `val/top1` or `test/auroc`.
        report: The verdict on the test cases, with intervals, for fine-tuning.
        stopped_by: The signal that has stopped the run; None if it is finished.
    """

    folder: Path
    model_path: Path | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    report: ClassificationReport | SegmentationReport | DetectionReport | None = None
    stopped_by: signal.Signals | None = None

    @property
    def finished(self) -> bool:
        """Whether it ran to its end; if not, it can be resumed."""
        return self.model_path is not None
