"""What the tests of whole commands share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from voxlift.config import SegmentConfig
from voxlift.data.volumes import Volume, write_volume
from voxlift.experiment import finetune

Snapshot = Callable[[Path], dict[str, bytes]]


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture(scope="session")
def snapshot() -> Snapshot:
    """Read all files of a folder, to tell whether any of them has changed."""

    def read(folder: Path) -> dict[str, bytes]:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    return read


@pytest.fixture(scope="session")
def pretrain_words() -> tuple[str, ...]:
    """Options for four steps of pre-training on 8 pixels by a network of width 4."""
    words = (
        "--backbone resnet10 --width 4 --stem 3 --image-size 8 --batch-size 9 --epochs 2 "
        "--val-fraction 0.25 --seed 3 --device cpu --precision fp32"
    )
    return tuple(words.split())


@pytest.fixture(scope="session")
def finetune_words() -> tuple[str, ...]:
    """Options for four steps of fine-tuning."""
    words = (
        "--backbone resnet10 --batch-size 6 --steps 4 --val-steps 2 --seed 5 --device cpu "
        "--precision fp32 --fractions 0.5 0.25 0.25"
    )
    return tuple(words.split())


@pytest.fixture(scope="session")
def scan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight scans of 9 x 12 x 11 voxels in HU with masks, of six patients, in parallel folders."""
    folder = tmp_path_factory.mktemp("scans")
    mask = np.zeros((9, 12, 11), np.uint8)
    mask[2:-2, 2:-2, 2:-2] = 1
    mask[3:5, 4:6, 4:6] = 2
    rows = ["name,patient_id"]
    for number in range(8):
        noise = np.random.default_rng(number).normal(0, 10, mask.shape)
        image = (np.choose(mask, (-900, 100, 40)) + noise).astype(np.int16)
        for kind, array in (("images", image), ("labels", mask)):
            path = folder / kind / f"scan-{number}.nii.gz"
            write_volume(path, Volume(array, spacing_mm=(2.0, 1.0, 1.0)))
        # The first two are of one patient, and so are the last two.
        rows.append(f"scan-{number},person-{min(max(number, 1), 6)}")
    (folder / "cases.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="session")
def segmenter(scan_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a segmenter that has seen `scan_folder`; not to be changed."""
    config = SegmentConfig.model_validate(
        {
            "data": str(scan_folder),
            "out": tmp_path_factory.mktemp("segmenter") / "run",
            "seed": 5,
            "steps": 2,
            "val_steps": 2,
            "fractions": (0.5, 0.25, 0.25),
            "class_names": ("liver", "lesion"),
            "network": {"backbone": "resnet10", "width": 4, "stem": 3},
            "scan": {"patch_voxels": (8, 8, 8)},
            "machine": {"device": "cpu", "precision": "fp32"},
        }
    )
    return finetune(config).folder


@pytest.fixture(scope="session")
def dicom_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of four CT series of 9 x 8 x 8 voxels, of patients with name and birth date."""
    folder = tmp_path_factory.mktemp("dicom")
    generator = np.random.default_rng(1)
    for number in range(12):
        series = folder / "abc"[number % 3] / f"series-{number}"
        series.mkdir(parents=True)
        uid = generate_uid(entropy_srcs=["series", str(number)])
        for depth in range(9):
            pixels = generator.integers(0, 1500 + 300 * (number % 3), (8, 8)).astype(np.uint16)
            _write_slice(series / f"{depth}.dcm", pixels, depth=depth, series_uid=uid)
    return folder


def _write_slice(path: Path, pixels: np.ndarray, *, depth: int, series_uid: str) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series_uid, str(depth)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID = CTImageStorage
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID, data.PatientBirthDate = "Doe^Jane", "Doe-17", "19700101"
    data.Modality, data.SeriesInstanceUID, data.StudyInstanceUID = "CT", series_uid, series_uid
    data.ImagePositionPatient = [0, 0, 2.0 * depth]
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.PixelSpacing = [1, 1]
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelRepresentation = 0
    data.PixelData = pixels.tobytes()
    data.save_as(path, enforce_file_format=True)
