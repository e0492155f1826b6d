"""Where candidates are written, and that no file is half-written or of another run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.core.files import write_text
from voxlift.data.volume import Volume
from voxlift.inference import detection_outputs
from voxlift.inference.candidate_files import (
    ModelIdentity,
    Thresholds,
    describe_candidates,
)
from voxlift.inference.detection_outputs import DetectedCase, DetectionOutputs
from voxlift.inference.segmentation_inputs import SegmentationInput

MODEL = ModelIdentity(name="model.safetensors", sha256="ab")
THRESHOLDS = Thresholds(
    score=0.05,
    nms_iou=0.5,
    max_boxes=100,
    merge_iou=0.3,
    max_gap_mm=5,
    min_slices=1,
    max_candidates=100,
    fast_context=False,
)


def answer(path: Path) -> DetectedCase:
    volume = Volume(np.zeros((3, 4, 5), np.int16))
    content = describe_candidates(
        (),
        input_path=path,
        volume=volume,
        model=MODEL,
        class_names=("lesion",),
        thresholds=THRESHOLDS,
    )
    return DetectedCase(content, volume, (), None)


@pytest.fixture
def case(tmp_path: Path) -> SegmentationInput:
    return SegmentationInput("scan", (tmp_path / "scan.nii.gz",))


@pytest.fixture
def outputs(tmp_path: Path) -> DetectionOutputs:
    return DetectionOutputs(tmp_path / "out", dicom_sr=True)


def test_files_are_called_after_their_case(
    case: SegmentationInput, outputs: DetectionOutputs, tmp_path: Path
) -> None:
    assert [path.name for path in outputs.paths(case)] == [
        "scan.candidates.json",
        "scan.candidates.png",
    ]
    # Only a series of DICOM has a report.
    series = SegmentationInput("series", (tmp_path,))
    assert [path.name for path in outputs.paths(series)][-1] == "series.sr.dcm"
    assert len(DetectionOutputs(tmp_path, dicom_sr=False).paths(series)) == 2


def test_what_is_written_is_read_again(case: SegmentationInput, outputs: DetectionOutputs) -> None:
    written = answer(case.path)
    outputs.write(case, written, is_ct=True)
    assert outputs.read(case, model=MODEL, thresholds=THRESHOLDS) == written.content
    with pytest.raises(DataError, match=r"scan\.candidates\.json.*--resume"):
        outputs.check_free([case])
    outputs.remove(case)
    outputs.check_free([case])
    assert outputs.read(case, model=MODEL, thresholds=THRESHOLDS) is None


@pytest.mark.parametrize("failing", ["write_candidate_overview", "write_candidates"])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_write_that_fails_leaves_no_case_that_seems_done(
    failing: str,
    earlier: bool,
    case: SegmentationInput,
    outputs: DetectionOutputs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if earlier:
        outputs.write(case, answer(case.path), is_ct=True)

    def full(path: Path, *_: Any, **__: Any) -> None:
        raise DataError(f"{path} could not be written: No space left on device.")

    def draw(path: Path, *_: Any, **__: Any) -> None:
        write_text(path, "a picture")

    monkeypatch.setattr(detection_outputs, "write_candidate_overview", draw)
    monkeypatch.setattr(detection_outputs, failing, full)
    with pytest.raises(DataError, match="No space"):
        outputs.write(case, answer(case.path), is_ct=True)
    assert not outputs.json(case).exists()
    assert not all(path.is_file() for path in outputs.paths(case))


def test_a_failing_write_leaves_nothing_half_written(
    case: SegmentationInput, outputs: DetectionOutputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is written aside, and a part of it never gets its name."""

    def cut(self: Path, text: str, **_: object) -> int:
        self.write_bytes(text.encode()[:10])
        raise OSError(28, "No space left on device")

    def draw(path: Path, *_: Any, **__: Any) -> None:
        path.parent.mkdir()

    monkeypatch.setattr(detection_outputs, "write_candidate_overview", draw)
    monkeypatch.setattr(Path, "write_text", cut)
    with pytest.raises(DataError, match=r"scan\.candidates\.json could not be written: No space"):
        outputs.write(case, answer(case.path), is_ct=True)
    assert list(outputs.folder.iterdir()) == []
