"""Small sound files of every kind that Voxlift reads, made by code: what fuzzing begins with."""

import csv
import gzip
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import torch
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from voxlift.config import FinetuneConfig
from voxlift.core.preprocessing import Preprocessing
from voxlift.data.deeplesion_phantoms import write_deeplesion_like
from voxlift.data.volume import Volume
from voxlift.data.volumes import write_volume
from voxlift.inference.candidate_files import (
    CandidateFile,
    CandidateTable,
    ModelIdentity,
    Thresholds,
    write_candidates,
)
from voxlift.inference.candidate_places import PlacedCandidate
from voxlift.inference.conversion import Target, convert_weights
from voxlift.nets.factory import create_backbone, create_model
from voxlift.training.run_folder import to_yaml
from voxlift.weights.header import HeadDescription
from voxlift.weights.save import save_weights

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
    import zlib

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


def images() -> list[Files]:
    """Write photographs of each kind and mode."""
    rgb = Image.fromarray(np.arange(8 * 9 * 3, dtype=np.uint8).reshape(8, 9, 3))
    found = []
    for mode, suffix, options in (
        ("RGB", "jpg", {}),
        ("L", "jpg", {"progressive": True}),
        ("CMYK", "jpg", {}),
        ("RGB", "png", {}),
        ("P", "png", {"transparency": 3}),
        ("RGBA", "png", {}),
        ("I;16", "png", {}),
        ("RGB", "webp", {"lossless": True}),
        ("RGB", "webp", {}),
    ):
        stream = io.BytesIO()
        image = rgb.convert("I").convert("I;16") if mode == "I;16" else rgb.convert(mode)
        exif = Image.Exif()
        exif[0x0112] = 6
        kind = "jpeg" if suffix == "jpg" else suffix
        image.save(stream, kind, exif=exif, **options)
        found.append({f"picture.{suffix}": stream.getvalue()})
    return found


def _model(task: str) -> torch.nn.Module:
    torch.manual_seed(0)
    backbone = create_backbone("resnet10", width=2, stem=3, geometry="small")
    return create_model(task, backbone=backbone, num_classes=2)


def models() -> list[Files]:
    """Write a classifier and a segmenter of ours, as prediction opens them."""

    def write(folder: Path, task: str) -> None:
        settings: dict[str, Any] = {}
        if task == "segment":
            settings = {
                "labels": {"names": ["background", "organ"], "values": [0, 1]},
                "channel_names": ["CT"],
                "window_voxels": [8, 8, 8],
            }
        save_weights(
            _model(task),
            folder / "model.safetensors",
            preprocessing=Preprocessing(spacing_mm=(1.0, 1.0, 1.0), size_voxels=(8, 8, 8)),
            head=HeadDescription(
                task=task, num_classes=2, class_names=("no", "yes"), settings=settings
            ),
            licence="MIT",
        )

    return [folder_of(lambda f, t=task: write(f, t)) for task in ("classify", "segment")]  # type: ignore[misc]


def pickles() -> list[Files]:
    """Write weights as `torch.save` does, in its present and its old form, plain and wrapped."""

    def write(folder: Path, content: object, *, legacy: bool) -> None:
        torch.save(content, folder / "model.pth", _use_new_zipfile_serialization=not legacy)

    state = {
        "conv1.weight": torch.ones(2, 1, 3, 3, 3),
        "bn1.running_var": torch.ones(2).half(),
        "fc.bias": torch.nn.Parameter(torch.zeros(3)),
    }
    wrapped = {"epoch": 3, "state_dict": state, "args": {"arch": "resnet"}, "best": (1.0, None)}
    return [
        folder_of(lambda f, c=content, old=legacy: write(f, c, legacy=old))  # type: ignore[misc]
        for content in (state, wrapped)
        for legacy in (False, True)
    ]


def foreign_weights() -> list[Files]:
    """Write a small network of ours in each layout that it can be converted to."""

    def write(folder: Path, target: Target, suffix: str) -> None:
        ours = folder / "ours.safetensors"
        backbone = create_backbone("resnet10", width=2, stem=7, geometry="volume")
        save_weights(backbone, ours)
        convert_weights(str(ours), folder / f"model{suffix}", to=target)
        ours.unlink()

    return [
        folder_of(lambda f, t=target: write(f, t, ".pth"))  # type: ignore[misc]
        for target in ("torch", "medicalnet", "monai")
    ]


def programs() -> list[Files]:
    """Write what begins like exported programs: they are refused, with what they say."""
    from voxlift.weights.programs import ONNX_ENTRY

    header = folder_of(lambda f: save_weights(_model("classify"), f / "m.safetensors"))[
        "m.safetensors"
    ]
    length = int.from_bytes(header[:8], "little")
    text = next(iter(json.loads(header[8 : 8 + length])["__metadata__"].values())).encode()
    size = bytes([len(text) % 128 + 128, len(text) // 128])
    import zipfile

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("m/archive_format", "pt2")
        archive.writestr("m/extra/voxlift", text)
    return [
        {"model.onnx": b"\x08\x0a" + bytes(40) + ONNX_ENTRY + size + text},
        {"model.pt2": packed.getvalue()},
    ]


def run_folders() -> list[Files]:
    """Write what a resumed run reads: its config, its metrics and its checkpoint."""
    config = FinetuneConfig.model_validate(
        {"data": "nodules.csv", "out": "run", "machine": {"device": "cpu"}}
    )
    lines = [
        {"step": step, "epoch": 0, "split": "val", "name": "auroc", "value": value}
        for step, value in ((0, 0.5), (1, None), (2, 0.75))
    ]
    checkpoint = {
        "epoch": 1,
        "global_step": 2,
        "pytorch-lightning_version": "2.5",
        "state_dict": {"model.weight": torch.ones(2, 3)},
        "callbacks": {"BestCheckpoint": {"best": 0.75}},
        "optimizer_states": [{"state": {0: {"step": torch.ones(())}}, "param_groups": []}],
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
    }

    def write(folder: Path) -> None:
        (folder / "run" / "checkpoints").mkdir(parents=True)
        (folder / "run" / "config.yaml").write_text(to_yaml(config))
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "run" / "metrics.jsonl").write_text(text)
        torch.save(checkpoint, folder / "run" / "checkpoints" / "last.ckpt")

    return [folder_of(write)]


def segmentation_json() -> list[Files]:
    """Write `dataset.json` as the Decathlon and nnU-Net have it, beside empty files."""
    decathlon = {
        "name": "Balls",
        "modality": {"0": "T1"},
        "labels": {"0": "background", "1": "ball", "2": "bead"},
        "training": [
            {"image": f"./imagesTr/case_{n}.nii.gz", "label": f"./labelsTr/case_{n}.nii.gz"}
            for n in (1, 2)
        ],
    }
    regions = {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
        "regions_class_order": [1, 2],
        "file_ending": ".nii.gz",
        "dataset": {
            f"c{n}": {
                "images": [f"imagesTr/case_{n}.nii.gz"],
                "label": f"labelsTr/case_{n}.nii.gz",
            }
            for n in (1, 2)
        },
    }
    return [
        {
            "dataset.json": json.dumps(content).encode(),
            **{f"imagesTr/case_{n}{channel}.nii.gz": b"x" for n in (1, 2)},
            **{f"labelsTr/case_{n}.nii.gz": b"x" for n in (1, 2)},
        }
        for content, channel in ((decathlon, ""), (regions, "_0000"))
    ]


def _table(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def manifests() -> list[Files]:
    """Write a list of volumes with labels."""
    rows = [
        ("path", "label", "group", "split"),
        *((f"{n}.nii.gz", n % 2, f"p{n}", ("train", "val", "test")[n % 3]) for n in range(6)),
    ]
    plain = [("path", "label"), *((f"{n}.nii.gz", ("cat", "dog")[n % 2]) for n in range(6))]
    there = {f"{n}.nii.gz": b"x" for n in range(6)}
    return [{"cases.csv": _table(rows), **there}, {"cases.csv": _table(plain), **there}]


def segmentation_manifests() -> list[Files]:
    """Write a list of volumes with masks."""
    rows = [
        ("image_T1", "image_T2", "label", "id", "group", "split"),
        *((f"{n}a.nii", f"{n}b.nii", f"{n}.nii", f"c{n}", f"p{n}", "train") for n in range(3)),
    ]
    plain = [("image", "label"), *((f"{n}a.nii;{n}b.nii", f"{n}.nii") for n in range(3))]
    there = {f"{n}{kind}.nii": b"x" for n in range(3) for kind in ("", "a", "b")}
    return [{"cases.csv": _table(rows), **there}, {"cases.csv": _table(plain), **there}]


def coco() -> list[Files]:
    """Write annotations of two pictures."""
    picture = images()[3]["picture.png"]
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 9, "width": 8} for n in range(2)],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 8, "bbox": [-1, 2, 5, 4], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 3, "bbox": [2, 2, 5, 5], "iscrowd": 1},
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
    }
    text = json.dumps(content).encode()
    return [{"instances.json": text, "images/0.png": picture, "images/1.png": picture}]


def deeplesion() -> list[Files]:
    """Write simulated scans in the layout of DeepLesion, with its table and its annotations."""
    files = folder_of(
        lambda f: write_deeplesion_like(
            f / "d", num_patients=3, seed=1, size=48, reach_mm=2.0, intervals_mm=(2.0,)
        )
    )
    return [{name.removeprefix("d/"): content for name, content in files.items()}]


def lidc() -> list[Files]:
    """Write nodules with their tables."""

    def write(folder: Path) -> None:
        (folder / "nodule").mkdir()
        for name in ("n1", "n2", "n4", "n5"):
            voxel = np.ones((3, 3, 3), np.uint8)
            np.savez_compressed(folder / "nodule" / f"{name}.npz", voxel=voxel, answer1=voxel > 0)
        (folder / "nodules.csv").write_text(
            "index,malignancy_mode,patient_id\nn1,1.0,a\nn2,2.0,b\nn4,4.0,c\nn5,5.0,d\n"
        )
        (folder / "train_test_split.csv").write_text(
            ",train,test\n0,n1.npz,n5.npz\n1,n4.npz,n2.npz\n"
        )

    return [folder_of(write)]


def reports() -> list[Files]:
    """Write what evaluation reads of another evaluation, and prediction of an earlier one."""
    place = (1.0, 2.0, 3.0)
    candidate = PlacedCandidate.model_validate(
        {
            "rank": 1,
            "label": 0,
            "class_name": "lesion",
            "score": 0.5,
            "slice_axis": "slice",
            **dict.fromkeys(("key_index", "first_index", "last_index"), 1.0),
            **dict.fromkeys(("centre_index", "low_index", "high_index"), place),
            **dict.fromkeys(("centre_mm", "extent_mm"), place),
            "corners_mm": (place,) * 8,
            "key_size_mm": (4.0, 3.0),
            "slices": (),
        }
    )
    thresholds = Thresholds(
        score=0.1,
        nms_iou=0.5,
        max_boxes=10,
        merge_iou=0.3,
        max_gap_mm=5.0,
        min_slices=1,
        max_candidates=100,
        fast_context=False,
    )
    found = CandidateFile(
        input="scan.nii.gz",
        model=ModelIdentity(name="model.safetensors"),
        class_names=("lesion",),
        thresholds=thresholds,
        size_voxels=(3, 4, 5),
        spacing_mm=place,
        origin_mm=place,
        direction=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
        num_found=1,
        candidates=(candidate,),
    )
    interval = {"value": 0.5, "low": 0.25, "high": 0.75, "num_redrawn": 0}
    curve = {
        "false_positives_per_image": [0.5, 1.0],
        "sensitivity": [interval, interval],
        "mean_sensitivity": interval,
        "grid": [0.5, 1.0],
        **{name: [0.5, None] for name in ("grid_sensitivity", "low", "high")},
        "num_groups": 2,
        "confidence": 0.95,
    }
    froc = {
        "cases_sha256": "0" * 64,
        "num_images": 2,
        "num_lesions": 2,
        "iou_threshold": 0.5,
        "matching": "iou",
        "all_classes": curve,
        "by_class": {"lesion": curve},
    }
    findings: dict[str, Any] = {
        "num_truths": np.array([1, 1]),
        **dict.fromkeys(("lesion_images", "lesion_rows"), np.array([0, 1])),
        "lesion_labels": np.array([0, 0]),
        "lesion_scores": np.array([0.5, 0.25]),
        **dict.fromkeys(("false_images", "false_labels"), np.array([0])),
        "false_scores": np.array([0.125]),
        "image_groups": np.array([0, 1]),
        "cases_sha256": np.array("0" * 64),
    }

    def write(folder: Path) -> None:
        write_candidates(folder / "scan.candidates.json", found)
        table = CandidateTable(folder / "candidates.csv")
        table.add(Path("scan.nii.gz"), [candidate])
        volumes = [("input", "mask", "organ_ml"), ("scan.nii.gz", "scan.mask.nii.gz", 1.5)]
        (folder / "volumes.csv").write_bytes(_table(volumes))
        (folder / "froc.json").write_text(json.dumps(froc))
        np.savez_compressed(folder / "findings.npz", allow_pickle=False, **findings)

    return [folder_of(write)]
