"""Small classifiers that are saved without having been trained, made-up segmenters, their files."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from torch import Tensor, nn

from voxlift.core.architecture import Architecture
from voxlift.core.detection_settings import DetectionSettings, DetectorSettings
from voxlift.core.files import write_text
from voxlift.core.geometry import named_geometry
from voxlift.core.label_scheme import LabelScheme
from voxlift.core.preprocessing import Preprocessing
from voxlift.core.segmentation_settings import SegmentationSettings
from voxlift.data.detection_batches import detection_preprocessing
from voxlift.data.volume import Volume
from voxlift.data.volumes import write_volume
from voxlift.inference import detection_files, detection_outputs, segmentation_outputs
from voxlift.inference.context_windows import SliceBoxes
from voxlift.inference.detection import the_detector
from voxlift.inference.saved_model import SavedModel
from voxlift.nets.classifier import Classifier
from voxlift.nets.detector import Detector
from voxlift.nets.factory import create_backbone
from voxlift.nets.resnet import ResNet
from voxlift.weights.header import HeadDescription, WeightHeader, parse_header
from voxlift.weights.save import save_weights

SIZE = (8, 8, 8)
# Sagittal, as many MR are: the depth grows to the left, the height to the feet.
SAGITTAL = np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]]).astype(np.float64)
CT = Preprocessing(
    unit="HU", intensity="window", window=(-1000, 1000), mean=0.5, std=0.2, size_voxels=SIZE
)


def make_network(num_classes: int = 2, *, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    architecture = Architecture(name="resnet10", width=4, stem_kernel=3)
    network = Classifier(ResNet(architecture, named_geometry("small")), num_classes=num_classes)
    # Unlike a new head, one with an opinion.
    torch.nn.init.normal_(network.head.weight, std=0.5)
    return network.eval()


def make_head(*class_names: str, **changes: Any) -> HeadDescription:
    return HeadDescription(
        task="classify", num_classes=len(class_names), class_names=class_names, **changes
    )


@pytest.fixture
def make_model() -> Callable[..., SavedModel]:
    """Make a model of two classes, or of those named."""

    def make(*class_names: str, seed: int = 0, **changes: Any) -> SavedModel:
        names = class_names or ("benign", "malignant")
        network = make_network(len(names), seed=seed)
        return SavedModel((network,), make_head(*names, **changes), CT)

    return make


@pytest.fixture
def save_model() -> Callable[..., Path]:
    """Save a model of two classes, or of those named, at a path."""

    def save(
        path: Path,
        *class_names: str,
        seed: int = 0,
        preprocessing: Preprocessing = CT,
        **changes: Any,
    ) -> Path:
        names = class_names or ("benign", "malignant")
        return save_weights(
            make_network(len(names), seed=seed),
            path,
            preprocessing=preprocessing,
            head=make_head(*names, **changes),
        )

    return save


class NearestClass(nn.Module):
    """Call each voxel by the class number that its intensity is nearest to, quite sure of it."""

    def __init__(self, num_classes: int, in_channels: int = 1) -> None:
        super().__init__()
        numbers = torch.arange(num_classes, dtype=torch.float32)
        self.numbers = nn.Parameter(numbers, requires_grad=False)
        self.in_channels = in_channels

    def forward(self, volumes: Tensor) -> Tensor:
        assert volumes.shape[1] == self.in_channels
        away = volumes.sum(1, keepdim=True) - self.numbers.reshape(1, -1, 1, 1, 1)
        return -20 * away**2


class AtLeast(nn.Module):
    """Find regions of an intensity of at least 0.5, 1.5, 2.5 ..., each within the last."""

    def __init__(self, num_regions: int) -> None:
        super().__init__()
        bounds = torch.arange(num_regions, dtype=torch.float32) + 0.5
        self.bounds = nn.Parameter(bounds, requires_grad=False)

    def forward(self, volumes: Tensor) -> Tensor:
        return 20 * (volumes - self.bounds.reshape(1, -1, 1, 1, 1))


@pytest.fixture
def make_segmenter() -> Callable[..., SavedModel]:
    """Make a segmenter that looks at each voxel alone, so that its answers can be told at once."""

    def make(
        labels: LabelScheme | None = None,
        *,
        preprocessing: Preprocessing | None = None,
        channel_names: tuple[str, ...] = ("CT",),
        window_voxels: tuple[int, int, int] = (4, 4, 4),
        network: nn.Module | None = None,
        **settings: Any,
    ) -> SavedModel:
        labels = labels or LabelScheme(names=("background", "liver", "tumour"), values=(0, 1, 2))
        if network is None:
            network = (
                AtLeast(labels.num_outputs)
                if labels.is_overlapping
                else NearestClass(labels.num_outputs, len(channel_names))
            )
        saved = SegmentationSettings(
            labels=labels,
            channel_names=channel_names,
            window_voxels=window_voxels,
            **settings,
        )
        head = HeadDescription(
            task="segment",
            num_classes=labels.num_outputs,
            class_names=labels.output_names,
            settings=saved.model_dump(mode="json"),
        )
        preprocessing = preprocessing or Preprocessing(in_channels=len(channel_names))
        return SavedModel((network.eval(),), head, preprocessing)

    return make


@pytest.fixture
def run_exported() -> Callable[[Path, Tensor], dict[str, Tensor]]:
    """Run an exported file without anything of Voxlift."""

    def run(path: Path, volumes: Tensor) -> dict[str, Tensor]:
        if path.suffix == ".onnx":
            session = _onnx_session(path)
            names = [output.name for output in session.get_outputs()]
            answers = session.run(names, {"volume": volumes.numpy()})
            return dict(zip(names, map(torch.from_numpy, answers), strict=True))
        with torch.no_grad():
            return dict(torch.export.load(path).module()(volumes))

    return run


@pytest.fixture
def header_in() -> Callable[[Path], WeightHeader]:
    """Read the header that an exported file carries."""

    def read(path: Path) -> WeightHeader:
        if path.suffix == ".onnx":
            metadata = _onnx_session(path).get_modelmeta().custom_metadata_map
            return parse_header(metadata["voxlift"], where="onnx")
        extra: dict[str, Any] = {"voxlift": ""}
        torch.export.load(path, extra_files=extra)
        return parse_header(extra["voxlift"], where="pt2")

    return read


def _onnx_session(path: Path) -> Any:
    runtime = importlib.import_module("onnxruntime")
    return runtime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture
def intensities() -> Callable[..., npt.NDArray[np.float32]]:
    """Draw intensities that `make_segmenter` takes for background, liver and tumour."""

    def draw(seed: int = 0) -> npt.NDArray[np.float32]:
        return np.random.default_rng(seed).uniform(-0.4, 2.4, (5, 6, 7)).astype(np.float32)

    return draw


@pytest.fixture
def write_scan() -> Callable[[Path, npt.NDArray[np.floating]], Path]:
    """Write a volume whose axes are those of a sagittal MR."""

    def write(path: Path, array: npt.NDArray[np.floating]) -> Path:
        volume = Volume(
            array, spacing_mm=(2.0, 0.5, 1.5), origin_mm=(5.0, -7.0, 30.0), direction=SAGITTAL
        )
        return write_volume(path, volume)

    return write


@pytest.fixture
def scans(
    tmp_path: Path,
    intensities: Callable[..., npt.NDArray[np.float32]],
    write_scan: Callable[..., Path],
) -> Path:
    """A folder of two scans; what is in it is `intensities` of 1 and 2."""
    folder = tmp_path / "scans"
    write_scan(folder / "a.nii.gz", intensities(1))
    write_scan(folder / "b.nrrd", intensities(2))
    return folder


@pytest.fixture
def _quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write something in the place of pictures, which take most of the time otherwise."""

    def draw(image: object, mask: object, path: Path, **_: object) -> None:
        write_text(path, "a picture")

    def draw_candidates(path: Path, *_: object, **__: object) -> None:
        write_text(path, "a picture")

    monkeypatch.setattr(segmentation_outputs, "plot_overview", draw)
    monkeypatch.setattr(detection_outputs, "write_candidate_overview", draw_candidates)


@pytest.fixture
def write_dicom_series() -> Callable[..., npt.NDArray[np.int16]]:
    """Write an axial CT series whose file names run against the places of its slices."""

    def write(
        folder: Path,
        *,
        values: npt.NDArray[np.int16] | None = None,
        orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
        prefix: str = "image",
        **tags: Any,
    ) -> npt.NDArray[np.int16]:
        if values is None:
            values = np.random.default_rng(0).integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
        normal = np.cross(orientation[:3], orientation[3:])
        folder.mkdir(parents=True, exist_ok=True)
        for number, pixels in enumerate(values):
            path = folder / f"{prefix}{len(values) - number:03}.dcm"
            position = np.array([-10.0, -20.0, 30.0]) + normal * 2.5 * number
            _write_dicom_slice(path, pixels, position.tolist(), orientation, tags)
        return values

    return write


def _write_dicom_slice(
    path: Path,
    pixels: npt.NDArray[np.int16],
    position: Sequence[float],
    orientation: Sequence[float],
    tags: dict[str, Any],
) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID = CTImageStorage
    header.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    header.PatientName = "Doe^Jane"
    header.PatientID = "secret-7"
    header.Modality = "CT"
    header.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.9"
    header.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    header.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.5"
    header.ImagePositionPatient = list(position)
    header.ImageOrientationPatient = list(orientation)
    header.PixelSpacing = [0.75, 0.5]
    header.SliceThickness = 2.5
    header.RescaleSlope, header.RescaleIntercept = 1, 0
    header.Rows, header.Columns = pixels.shape
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
    header.PixelRepresentation = 1
    header.PixelData = pixels.tobytes()
    for name, value in tags.items():
        if value is None:
            del header[name]
        else:
            setattr(header, name, value)
    header.save_as(path, enforce_file_format=True)


@pytest.fixture
def lesion_detector() -> SavedModel:
    """A detector of lesions; `_bright_lesions` answers in its place."""
    settings = DetectionSettings(
        class_names=("lesion",),
        num_slices=3,
        image_size=32,
        detector=DetectorSettings(fpn_channels=8, head_width=8),
    )
    torch.manual_seed(0)
    backbone = create_backbone("resnet10", width=4, stem=3, num_slices=3)
    network = Detector(backbone, num_classes=1, settings=settings.detector).eval()
    head = HeadDescription(
        task="detect",
        num_classes=1,
        class_names=settings.class_names,
        settings=settings.model_dump(mode="json"),
    )
    return SavedModel((network,), head, detection_preprocessing("HU"))


def _bright_boxes(model: SavedModel, volume: Volume, **settings: Any) -> list[SliceBoxes]:
    """Box what is above 500 HU and above 900 HU in each slice, the brighter the surer."""
    volume.check_finite()
    threshold = the_detector(model).score_threshold
    found = []
    for position, plane in enumerate(volume.array):
        boxes, scores = [], []
        for low, high, score in ((900, 2000, 0.75), (500, 900, 0.5)):
            rows, columns = np.nonzero((plane > low) & (plane <= high))
            if len(rows) and score >= threshold:
                ends = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                boxes.append([float(end) for end in ends])
                scores.append(score)
        found.append(
            SliceBoxes(
                float(position),
                np.array(boxes, np.float32).reshape(-1, 4),
                np.array(scores, np.float32),
                np.zeros(len(scores), np.int64),
            )
        )
        if settings["on_slice"] is not None:
            settings["on_slice"](position + 1, len(volume.array))
    return found


@pytest.fixture
def _bright_lesions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer for a detector by what is bright."""
    monkeypatch.setattr(detection_files, "detect_slices", _bright_boxes)
