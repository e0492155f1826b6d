"""Pixels of DICOM files: the compressions in use, and files that are cut."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from voxlift.core.errors import DataError
from voxlift.data.volumes import read_volume

SERIES = "1.2.826.0.1.3680043.8.498.1"
PIXELS = np.random.default_rng(0).integers(0, 3000, (1, 4, 6)).astype(np.uint16)


def write_slice(path: Path, pixels: np.ndarray, *, height: float) -> None:
    data = Dataset()
    data.SOPClassUID = CTImageStorage
    data.SOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    data.Modality, data.SeriesInstanceUID = "CT", SERIES
    data.ImagePositionPatient = [0, 0, height]
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.PixelSpacing, data.SliceThickness = [1, 1], 1
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelRepresentation = 0
    data.PixelData = pixels.tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)


def test_run_length_encoded_slices_are_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 3000, (3, 64, 64)).astype(np.uint16)
    for index, one in enumerate(pixels):
        path = tmp_path / f"{index}.dcm"
        write_slice(path, one, height=index)
        data = pydicom.dcmread(path)
        data.compress(RLELossless)
        data.save_as(path)
    np.testing.assert_array_equal(read_volume(tmp_path).array, pixels.astype(np.int32) - 1024)


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
def test_lossless_jpeg_slices_are_read(tmp_path: Path, compressor: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 3000, (3, 64, 64)).astype(np.uint16)
    for index, one in enumerate(pixels):
        path = tmp_path / f"{index}.dcm"
        writer = SimpleITK.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetFileName(str(path))
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.Execute(SimpleITK.GetImageFromArray(one[None]))
        data = pydicom.dcmread(path)
        assert data.file_meta.TransferSyntaxUID.is_compressed
        data.Modality, data.SeriesInstanceUID = "CT", SERIES
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = [0, 0, index]
        data.PixelSpacing = [1, 1]
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.save_as(path)
    np.testing.assert_array_equal(read_volume(tmp_path).array, pixels.astype(np.int32) - 1024)


@pytest.mark.parametrize("compressor", [JPEGLSLossless, DeflatedExplicitVRLittleEndian])
def test_other_transfer_syntaxes_are_read(tmp_path: Path, compressor: UID) -> None:
    pixels = np.random.default_rng(0).integers(0, 3000, (3, 64, 64)).astype(np.uint16)
    for index, one in enumerate(pixels):
        path = tmp_path / f"{index}.dcm"
        write_slice(path, one, height=index)
        data = pydicom.dcmread(path)
        if compressor == JPEGLSLossless:
            data.compress(compressor)
        data.file_meta.TransferSyntaxUID = compressor
        data.save_as(path, enforce_file_format=True)
    np.testing.assert_array_equal(read_volume(tmp_path).array, pixels.astype(np.int32) - 1024)


@pytest.mark.parametrize(
    ("syntax", "name"),
    [
        ("1.2.840.10008.1.2.4.201", r"High-Throughput JPEG 2000 Image Compression"),
        ("1.2.840.10008.1.2.4.100", r"MPEG2 Main Profile"),
        ("1.2.826.0.1.3680043.2.1", r"1\.2\.826\.0\.1\.3680043\.2\.1"),
    ],
)
def test_transfer_syntaxes_that_are_not_read_are_named(
    tmp_path: Path, syntax: str, name: str
) -> None:
    path = tmp_path / "a.dcm"
    write_slice(path, PIXELS[0], height=0)
    data = pydicom.dcmread(path)
    data.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(200)])
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = UID(syntax)
    data.save_as(path, enforce_file_format=True)
    with pytest.raises(DataError, match=rf"a\.dcm: .*compressed as {name}.*decompress it first"):
        read_volume(tmp_path)


@pytest.mark.filterwarnings("ignore:End of file reached")
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=lambda s: s.keyword)
def test_slice_cut_at_any_place_is_refused(tmp_path: Path, syntax: UID) -> None:
    path = tmp_path / "a.dcm"
    pixels = np.random.default_rng(0).integers(0, 3000, (16, 16)).astype(np.uint16)
    write_slice(path, pixels, height=0)
    if syntax == RLELossless:
        data = pydicom.dcmread(path)
        data.compress(syntax)
        data.save_as(path, enforce_file_format=True)
    whole = path.read_bytes()
    # The last eight bytes of compressed pixels say that there are no more.
    for length in range(0, len(whole) - 8, 5):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a\.dcm|no DICOM file"):
            read_volume(tmp_path)
