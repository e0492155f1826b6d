"""What is not exported, and what is left of a failure: no file, and an earlier one untouched."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from voxlift.core.errors import ConfigError, DataError, WeightsError
from voxlift.core.extras import PACKAGES
from voxlift.inference import exported_program
from voxlift.inference.export import export_model
from voxlift.inference.saved_model import SavedModel
from voxlift.nets.encoder import Encoder
from voxlift.nets.factory import create_backbone, create_model

SUFFIXES = (".onnx", ".pt2")
SIZE = (8, 12, 16)


def backbone(**options: Any) -> Encoder:
    fields = {"geometry": "small", "width": 4, "stem": 3, **options}
    return create_backbone("resnet10", **fields).eval()


def nothing_in(folder: Path) -> bool:
    return not folder.exists() or not list(folder.iterdir())


def break_writer(suffix: str, factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = exported_program.SUFFIXES[suffix]
    writer = exported_program.WRITERS[kind]

    def wrong(trace: Any, path: Path) -> Any:
        answer = writer(trace, path)
        return lambda volume: {k: v * factor for k, v in answer(volume).items()}

    monkeypatch.setitem(exported_program.WRITERS, kind, wrong)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_numbers_leave_no_file(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_writer(suffix, 1 + 2e-4, monkeypatch)
    with pytest.raises(WeightsError, match=r"other numbers.*map\d differs.*Nothing was written"):
        export_model(backbone(), tmp_path / "out" / f"a{suffix}", size_voxels=SIZE)
    assert nothing_in(tmp_path / "out")


def test_a_network_that_answers_nan_is_not_exported(tmp_path: Path) -> None:
    network = create_model("classify", backbone=backbone(), num_classes=2)
    network.head.bias.data[0] = float("nan")  # type: ignore[union-attr, operator]
    with pytest.raises(WeightsError, match="logits differs by nan"):
        export_model(network, tmp_path / "a.pt2", size_voxels=SIZE)
    assert nothing_in(tmp_path)


def test_an_earlier_file_survives_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.pt2").write_text("earlier")
    break_writer(".pt2", 1.01, monkeypatch)
    with pytest.raises(WeightsError):
        export_model(backbone(), tmp_path / "a.pt2", size_voxels=SIZE)
    assert (tmp_path / "a.pt2").read_text() == "earlier"


def test_what_cannot_be_traced_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = backbone()

    def stubborn(volume: Tensor) -> list[Tensor]:
        return [volume if volume.sum() > 0 else -volume] * 5

    monkeypatch.setattr(network, "forward", stubborn)
    for suffix in SUFFIXES:
        with pytest.raises(ConfigError, match=r"This resnet10 cannot be exported: .*other format"):
            export_model(network, tmp_path / f"a{suffix}", size_voxels=SIZE)
    with pytest.raises(ConfigError, match=r"cannot be exported.*dynamic 'batch'"):
        export_model(network, tmp_path / "a.pt2", size_voxels=SIZE, dynamic="all")
    assert nothing_in(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size_voxels": None}, "Give the size to export for"),
        ({"size_voxels": (0, 8, 8)}, "each 1 or more"),
        ({"size_voxels": (8, 8)}, "three numbers"),
        ({"dynamic": "size"}, "known are none, batch and all"),
        ({"batch_size": 2}, "goes with dynamic 'none' only"),
        ({"batch_size": 0, "dynamic": "none"}, "1 or more"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        export_model(backbone(), tmp_path / "a.onnx", **{"size_voxels": SIZE, **options})
    assert nothing_in(tmp_path)


def test_volumes_too_small_for_the_geometry_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too small for this geometry"):
        export_model(backbone(), tmp_path / "a.pt2", size_voxels=(2, 2, 2))


def test_formats_go_by_the_suffix(tmp_path: Path) -> None:
    for name in ("a.pth", "a", "a.ONNX"):
        with pytest.raises(ConfigError, match=r"expected \.onnx \(ONNX\) or \.pt2"):
            export_model(backbone(), tmp_path / name, size_voxels=SIZE)


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PACKAGES["onnx"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"onnx, onnxscript, onnxruntime.*voxlift\[onnx\]"):
        export_model(backbone(), tmp_path / "a.onnx", size_voxels=SIZE)
    export_model(backbone(), tmp_path / "a.pt2", size_voxels=SIZE, dynamic="none")


def test_too_large_for_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exported_program, "MAX_ONNX_BYTES", 1000)
    with pytest.raises(ConfigError, match=r"2 GiB.*\.pt2"):
        export_model(backbone(), tmp_path / "a.onnx", size_voxels=SIZE)


def test_averages_of_folds_are_refused(
    make_model: Callable[..., SavedModel], save_model: Callable[..., Path], tmp_path: Path
) -> None:
    networks = make_model().networks * 2
    average = SavedModel(networks, make_model().head, make_model().preprocessing)
    with pytest.raises(ConfigError, match="average of 2 folds"):
        export_model(average, tmp_path / "a.pt2")
    for fold in (0, 1):
        save_model(tmp_path / "run" / f"fold-{fold}" / "model.safetensors", settings={"folds": 2})
    with pytest.raises(ConfigError, match=r"average of 2 folds.*fold-0"):
        export_model(tmp_path / "run", tmp_path / "a.pt2")


def test_foreign_modules_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no Voxlift backbone"):
        export_model(nn.Conv3d(1, 1, 1), tmp_path / "a.pt2", size_voxels=SIZE)
