"""Small sound files of every kind but volumes, made by code: what fuzzing begins with."""

import csv
import io
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fuzz_volume_seeds import Files, folder_of
from voxlift.config import FinetuneConfig
from voxlift.core.preprocessing import Preprocessing
from voxlift.data.deeplesion_phantoms import write_deeplesion_like
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
from voxlift.weights.programs import ONNX_ENTRY
from voxlift.weights.save import save_weights


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
    state = {
        "conv1.weight": torch.ones(2, 1, 3, 3, 3),
        "bn1.running_var": torch.ones(2).half(),
        "fc.bias": torch.nn.Parameter(torch.zeros(3)),
    }
    beside = {"epoch": 3, "args": {"arch": "resnet"}, "best": (1.0, None)}
    # The old form has its blocks in the order of their addresses: with one there is no other.
    small = {"conv1.weight": torch.ones(2, 1, 3, 3, 3)}
    return [
        *(_pickle(content) for content in (state, {**beside, "state_dict": state})),
        *(_legacy_pickle(content) for content in (small, {**beside, "state_dict": small})),
    ]


def _pickle(content: object) -> Files:
    return folder_of(lambda folder: torch.save(content, folder / "model.pth"))


def _legacy_pickle(content: object) -> Files:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=False)
    # A block's name is its address, which differs from one process to the next.
    return {"model.pth": re.sub(rb"X.\0\0\0\d{6,}", b"X\x01\0\0\x000", stream.getvalue())}


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
    header = folder_of(lambda f: save_weights(_model("classify"), f / "m.safetensors"))[
        "m.safetensors"
    ]
    length = int.from_bytes(header[:8], "little")
    text = next(iter(json.loads(header[8 : 8 + length])["__metadata__"].values())).encode()
    size = bytes([len(text) % 128 + 128, len(text) // 128])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        # An entry bears the hour, unless it is told.
        archive.writestr(zipfile.ZipInfo("m/archive_format"), "pt2")
        archive.writestr(zipfile.ZipInfo("m/extra/voxlift"), text)
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
