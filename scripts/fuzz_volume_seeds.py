"""Small sound volumes of every kind, made by code: what fuzzing begins with."""

import gzip
import io
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from voxlift.data.volume import Volume
from voxlift.data.volumes import write_volume

Files = dict[str, bytes]
"""A folder: contents by name."""

VOXELS = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5) - 20
VOLUME = Volume(VOXELS, (2.5, 0.75, 0.5), (-10.0, 20.0, 3.0))


def folder_of(write: Callable[[Path], object]) -> Files:
    """Return what a function writes into a folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


def _volume(suffix: str) -> Files:
    return folder_of(lambda folder: write_volume(folder / f"scan{suffix}", VOLUME))


def nifti() -> list[Files]:
    """Write NIfTI files of version 1 and 2, with a qform, an sform or both, of several types."""
    import nibabel

    def write(folder: Path, array: np.ndarray, *, both: bool, second: bool, scaled: bool) -> None:
        affine = np.array([[0, -0.5, 0, 9.0], [0.75, 0, 0, -9], [0, 0, 2.5, 3], [0, 0, 0, 1]])
        kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
        image = kind(array, affine)
        image.set_sform(affine, code=1 if both else 2)
        image.set_qform(affine, code=1 if both else 0)
        if scaled:
            image.header.set_slope_inter(2.0, -1024.0)
        (folder / "scan.nii").write_bytes(image.to_bytes())

    four = np.stack([VOXELS, VOXELS]).T.astype(np.float32)
    return [
        folder_of(lambda f: write(f, VOXELS.T, both=True, second=False, scaled=True)),
        folder_of(lambda f: write(f, four, both=False, second=False, scaled=False)),
        folder_of(lambda f: write(f, VOXELS.T, both=True, second=True, scaled=False)),
        _volume(".nii"),
    ]


def compressed_nifti() -> list[Files]:
    """Write the same, compressed."""
    return [{"scan.nii.gz": gzip.compress(one["scan.nii"], mtime=0)} for one in nifti()]


def nrrd() -> list[Files]:
    """Write NRRD files: raw, compressed and as text, with directions, spacings and channels."""
    begin = "NRRD0004\n# a comment\ntype: short\nendian: little\n"
    space = (
        "space: left-posterior-superior\nspace origin: (-10,20,3)\nkinds: domain domain domain\n"
    )
    axes = "space directions: (0.5,0,0) (0,0.75,0) (0,0,2.5)\n"
    plain = f"{begin}dimension: 3\nsizes: 5 4 3\n"
    raw = VOXELS.tobytes()
    text = " ".join(map(str, VOXELS.ravel())).encode()
    vector = (
        "NRRD0005\ntype: float\nendian: big\ndimension: 4\nsizes: 2 5 4 3\nencoding: raw\n"
        'space: right-anterior-superior\nspace origin: (0,0,0)\nspace units: "mm" "mm" "mm"\n'
        "space directions: none (0.5,0,0) (0,0.75,0) (0,0,2.5)\n"
        "kinds: vector domain domain domain\nkey:=value\n\n"
    )
    return [
        {"scan.nrrd": f"{plain}{space}{axes}encoding: raw\n\n".encode() + raw},
        {
            "scan.nrrd": f"{plain}{space}{axes}encoding: gzip\n\n".encode()
            + gzip.compress(raw, mtime=0)
        },
        {"scan.nrrd": f"{plain}spacings: 0.5 0.75 2.5\nencoding: ascii\n\n".encode() + text},
        {"scan.nrrd": vector.encode() + np.ones((3, 4, 5, 2), ">f4").tobytes()},
        _volume(".nrrd"),
    ]


def nhdr() -> list[Files]:
    """Write NRRD headers beside their data."""
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 4 3\nendian: little\n"
        "space: left-posterior-superior\nspace origin: (-10,20,3)\n"
        "space directions: (0.5,0,0) (0,0.75,0) (0,0,2.5)\n"
    )
    raw = VOXELS.tobytes()
    return [
        {"scan.nhdr": f"{header}encoding: raw\ndata file: scan.raw\n".encode(), "scan.raw": raw},
        {
            "scan.nhdr": f"{header}encoding: raw\nbyte skip: 8\nline skip: 1\n"
            "data file: scan.raw\n".encode(),
            "scan.raw": b"x\n12345678" + raw,
        },
        {
            "scan.nhdr": f"{header}encoding: gzip\ndatafile: scan.raw.gz\n".encode(),
            "scan.raw.gz": gzip.compress(raw, mtime=0),
        },
    ]


def mha() -> list[Files]:
    """Write MetaImages in one file."""
    header = (
        "ObjectType = Image\nNDims = 4\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        "CompressedData = False\nTransformMatrix = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n"
        "Offset = 0 0 0 0\nElementSpacing = 0.5 0.75 2.5 1\nDimSize = 5 4 3 2\n"
        "ElementType = MET_FLOAT\nElementDataFile = LOCAL\n"
    )
    channels = np.ones((2, 3, 4, 5), "<f4").tobytes()
    return [_volume(".mha"), {"scan.mha": header.encode() + channels}]


def mhd() -> list[Files]:
    """Write MetaImages beside their data."""
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        "CompressedData = {packed}\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = -10 20 3\n"
        "CenterOfRotation = 0 0 0\nAnatomicalOrientation = RAI\nElementSpacing = 0.5 0.75 2.5\n"
        "DimSize = 5 4 3\nElementNumberOfChannels = {channels}\nHeaderSize = {skipped}\n"
        "ElementType = MET_SHORT\nElementDataFile = scan.raw\n"
    )
    raw = VOXELS.tobytes()
    return [
        {
            "scan.mhd": header.format(packed=packed, channels=channels, skipped=skipped).encode(),
            "scan.raw": data,
        }
        for packed, channels, skipped, data in (
            (False, 1, 0, raw),
            (True, 1, 0, zlib.compress(raw)),
            (False, 2, -1, raw + raw),
        )
    ]


def _item(**tags: Any) -> Dataset:
    dataset = Dataset()
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def _image(kind: uid.UID, pixels: np.ndarray, **tags: Any) -> Dataset:
    rows, columns = pixels.shape[-2:]
    data = _item(
        SOPClassUID=kind,
        SOPInstanceUID="1.2.5",
        PatientName="Doe^Jane",
        PatientID="7",
        Modality="CT",
        SeriesInstanceUID="1.2.3",
        StudyInstanceUID="1.2.4",
        Rows=rows,
        Columns=columns,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=16,
        BitsStored=16,
        HighBit=15,
        PixelRepresentation=0,
        PixelData=pixels.tobytes(),
        **tags,
    )
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return data


def _dicom(data: Dataset, syntax: uid.UID) -> bytes:
    if syntax == uid.RLELossless or syntax == uid.JPEGLSLossless:
        data.compress(syntax, generate_instance_uid=False)
    data.file_meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data, enforce_file_format=True)
    return stream.getvalue()


def dicom_series() -> list[Files]:
    """Write series of three slices, plain and compressed."""
    pixels = (VOXELS + 1000).astype(np.uint16)
    return [
        {
            f"{number}.dcm": _dicom(
                _image(
                    uid.CTImageStorage,
                    one,
                    ImagePositionPatient=[-10, -20, 2.5 * number],
                    ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                    PixelSpacing=[0.75, 0.5],
                    SliceThickness=2.5,
                    RescaleSlope=1,
                    RescaleIntercept=-1024,
                ),
                syntax,
            )
            for number, one in enumerate(pixels)
        }
        for syntax in (uid.ExplicitVRLittleEndian, uid.JPEGLSLossless, uid.ImplicitVRLittleEndian)
    ]


def enhanced_dicom() -> list[Files]:
    """Write files of three frames, plain and compressed."""
    pixels = (VOXELS + 1000).astype(np.uint16)
    shared = _item(
        PixelMeasuresSequence=[_item(PixelSpacing=[0.75, 0.5], SliceThickness=2.5)],
        PlaneOrientationSequence=[_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelValueTransformationSequence=[
            _item(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="US")
        ],
    )
    frames = [
        _item(
            PlanePositionSequence=[_item(ImagePositionPatient=[-10, -20, 2.5 * number])],
            FrameContentSequence=[_item(StackID="1", TemporalPositionIndex=1)],
        )
        for number in range(len(pixels))
    ]
    return [
        {
            "scan.dcm": _dicom(
                _image(
                    uid.EnhancedCTImageStorage,
                    pixels,
                    NumberOfFrames=len(pixels),
                    SharedFunctionalGroupsSequence=[shared],
                    PerFrameFunctionalGroupsSequence=frames,
                ),
                syntax,
            )
        }
        for syntax in (
            *(uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian),
            *(uid.RLELossless, uid.JPEGLSLossless),
        )
    ]


def npy() -> list[Files]:
    """Write plain arrays."""

    def write(folder: Path, array: np.ndarray) -> None:
        np.save(folder / "scan.npy", array)

    return [
        folder_of(lambda f: write(f, VOXELS)),
        folder_of(lambda f: write(f, np.ones((2, 3, 4, 5), ">f8"))),
        folder_of(lambda f: write(f, np.asfortranarray(VOXELS.astype(np.float32)))),
    ]


def npz() -> list[Files]:
    """Write arrays with their geometry."""

    def write(folder: Path) -> None:
        np.savez(folder / "scan.npz", volume=VOXELS, other=np.ones(3))

    return [_volume(".npz"), folder_of(write)]


def medmnist() -> list[Files]:
    """Write images and labels of three splits."""

    def write(folder: Path) -> None:
        arrays: dict[str, np.ndarray] = {}
        for split in ("train", "val", "test"):
            arrays[f"{split}_images"] = np.ones((3, 2, 3, 4), np.uint8)
            arrays[f"{split}_labels"] = np.array([[0], [1], [0]], np.uint8)
        np.savez_compressed(folder / "nodules.npz", allow_pickle=False, **arrays)

    return [folder_of(write)]
