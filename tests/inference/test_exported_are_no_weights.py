"""Whoever takes an exported program for a weight file is told what it is and what to give."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from voxlift.core.errors import WeightsError
from voxlift.inference.export import export_model
from voxlift.inference.inspection import try_weights
from voxlift.nets.factory import create_backbone
from voxlift.weights.file import read_weight_file
from voxlift.weights.inspect import describe_weights


@pytest.mark.parametrize(
    ("suffix", "what", "run"),
    [
        (".pt2", "a file of torch.export", r"torch\.export\.load\('model\.pt2'\)"),
        (".onnx", "an ONNX file", r"onnxruntime\.InferenceSession\('model\.onnx'\)"),
    ],
)
def test_a_program_says_what_it_was_made_of(
    suffix: str, what: str, run: str, save_model: Callable[..., Path], tmp_path: Path
) -> None:
    saved = save_model(tmp_path / "model.safetensors")
    path = tmp_path / f"model{suffix}"
    export_model(saved, path, dynamic="none")
    sha256 = read_weight_file(saved).sha256
    told = (
        f"{what}, which holds a program, made by Voxlift of a resnet10 of width 4, trained to "
        rf"classify: benign, malignant\. .*{run}.*weight file .*exported from.*{sha256}"
    )
    for ask in (describe_weights, lambda file: try_weights(file, "resnet10")):
        with pytest.raises(WeightsError, match=told):
            ask(path)


def test_a_backbone_in_memory_has_no_file_to_name(tmp_path: Path) -> None:
    network = create_backbone("resnet10", width=4, stem=3, geometry="small").eval()
    export_model(network, tmp_path / "a.pt2", size_voxels=(8, 8, 8), dynamic="none")
    with pytest.raises(WeightsError, match=r"of width 4\. It is run.* it was exported from\.$"):
        describe_weights(tmp_path / "a.pt2")


@pytest.mark.parametrize("content", [b"", b"abc", b"\n\x07voxlift\x12\xff\xff\xff\xff\xff{}"])
def test_other_programs_say_nothing_of_themselves(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"an ONNX file, which holds a program\. It is run"):
        read_weight_file(path)


def test_archives_are_told_by_what_is_in_them(tmp_path: Path) -> None:
    for name, member in (("new", "a/archive_format"), ("old", "serialized_exported_program.json")):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr(member, "pt2")
            archive.writestr("a/extra/voxlift", "no JSON")
        with pytest.raises(WeightsError, match=r"torch\.export, which holds a program\. It is"):
            read_weight_file(tmp_path / f"{name}.zip")
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(WeightsError, match="is a zip archive"):
        read_weight_file(tmp_path / "plain.zip")
