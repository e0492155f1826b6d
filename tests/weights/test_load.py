import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from voxlift.core.errors import WeightsError
from voxlift.core.preprocessing import Preprocessing
from voxlift.weights.file import read_weight_file, write_weight_file
from voxlift.weights.header import HeadDescription, WeightHeader
from voxlift.weights.load import load_weights
from voxlift.weights.save import save_weights

Make = Callable[..., Any]


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    assert model.state_dict().keys() == state.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_what_was_saved_comes_back_and_computes_the_same(
    make_backbone: Make, tmp_path: Path
) -> None:
    trained, fresh = make_backbone(seed=1), make_backbone(seed=2)
    path = save_weights(trained, tmp_path / "a.safetensors")
    report = load_weights(fresh, path)
    assert_same(fresh, trained.state_dict())
    assert set(report.exact) == set(trained.state_dict())
    assert report.coverage == 1
    assert report.is_complete
    assert report.num_parameters == sum(p.numel() for p in trained.parameters())
    assert report.sha256 == read_weight_file(path).sha256
    assert not report.geometry
    volume = torch.randn(1, 1, 3, 6, 6)
    assert torch.equal(fresh(volume), trained(volume))


def test_parameters_stay_the_same_objects_and_keep_their_gradient_flag(
    make_backbone: Make, tmp_path: Path
) -> None:
    path = save_weights(make_backbone(seed=1), tmp_path / "a.safetensors")
    model = make_backbone(seed=2)
    before = list(model.parameters())
    before[0].requires_grad = False
    load_weights(model, path)
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
    assert [p.requires_grad for p in before] == [False] + [True] * (len(before) - 1)


def test_half_precision_files_load_as_exact(make_backbone: Make, tmp_path: Path) -> None:
    trained, fresh = make_backbone(seed=1), make_backbone(seed=2)
    report = load_weights(fresh, save_weights(trained, tmp_path / "a.safetensors", half=True))
    assert report.coverage == 1
    assert not report.adapted
    assert any("half precision" in note for note in report.notes)
    for name, tensor in fresh.state_dict().items():
        assert tensor.dtype == trained.state_dict()[name].dtype
        torch.testing.assert_close(tensor, trained.state_dict()[name], rtol=2**-11, atol=1e-7)


def test_geometry_is_reported_and_not_changed(make_backbone: Make, tmp_path: Path) -> None:
    trained, other = make_backbone(seed=1), make_backbone(seed=2, geometry="volume")
    geometry = other.geometry
    report = load_weights(other, save_weights(trained, tmp_path / "a.safetensors"))
    assert other.geometry == geometry
    assert report.geometry.keys() == {"stem_stride", "pool_stride", "stage_strides"}
    assert report.geometry["stem_stride"] == "(1, 2, 2) in the file, (2, 2, 2) in the model"
    assert "geometry differs: stem_stride" in str(report)


def test_preprocessing_is_compared_where_both_sides_are_known(
    make_backbone: Make, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(make_backbone(), path, preprocessing=Preprocessing.for_photographs(32))
    hounsfield = Preprocessing(unit="HU", intensity="window", window=(-1000, 400))
    report = load_weights(make_backbone(), path, preprocessing=hounsfield)
    assert report.preprocessing["unit"] == "0-255 in the file, HU in the model"
    assert not load_weights(make_backbone(), path).preprocessing
    save_weights(make_backbone(), path)
    assert not load_weights(make_backbone(), path, preprocessing=hounsfield).preprocessing


@pytest.mark.parametrize(("found", "wanted"), [(1, 3), (3, 1)])
def test_input_channels_are_adapted_and_said_so(
    make_backbone: Make, tmp_path: Path, found: int, wanted: int
) -> None:
    trained = make_backbone(seed=1, in_channels=found)
    model = make_backbone(seed=2, in_channels=wanted)
    report = load_weights(model, save_weights(trained, tmp_path / "a.safetensors"))
    assert report.adapted.keys() == {"conv1.weight"}
    assert report.coverage == 1
    assert report.architecture == {"in_channels": f"{found} in the file, {wanted} in the model"}
    grey = torch.randn(1, 1, 3, 6, 6)
    torch.testing.assert_close(
        model(grey.expand(-1, wanted, -1, -1, -1)), trained(grey.expand(-1, found, -1, -1, -1))
    )


def test_a_backbone_goes_into_a_classifier_and_back(
    make_backbone: Make, make_classifier: Make, tmp_path: Path
) -> None:
    trained, model = make_backbone(seed=1), make_classifier(seed=2)
    head = model.head.weight.clone()
    report = load_weights(model, save_weights(trained, tmp_path / "a.safetensors"))
    assert_same(model.backbone, trained.state_dict())
    assert torch.equal(model.head.weight, head)
    assert set(report.exact) == {f"backbone.{name}" for name in trained.state_dict()}
    assert report.ignored.keys() == {"head.weight", "head.bias"}
    back = make_backbone(seed=3)
    report = load_weights(back, save_weights(model, tmp_path / "b.safetensors"))
    assert_same(back, trained.state_dict())
    assert report.ignored.keys() == {"head.weight", "head.bias"}
    assert report.coverage == 1


def test_a_head_goes_into_the_same_head_only(make_classifier: Make, tmp_path: Path) -> None:
    trained = make_classifier(seed=1, num_classes=3)
    path = tmp_path / "a.safetensors"
    description = HeadDescription(task="pretrain", num_classes=3, class_names=("a", "b", "c"))
    save_weights(trained, path, head=description)
    same, other = make_classifier(seed=2, num_classes=3), make_classifier(seed=2, num_classes=4)
    report = load_weights(same, path, head="required")
    assert_same(same, trained.state_dict())
    assert any("pretrain: a, b, c" in note for note in report.notes)
    before = other.head.weight.clone()
    assert load_weights(other, path).ignored.keys() == {"head.weight", "head.bias"}
    assert torch.equal(other.head.weight, before)
    state = snapshot(other)
    with pytest.raises(WeightsError, match=r"\(3, 4\) in the file, \(4, 4\) in the model"):
        load_weights(other, path, head="required")
    assert_same(other, state)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"width": 8}, "width is 4 in the file, 8 in the model"),
        ({"stem_kernel": 7}, "stem_kernel is 3 in the file, 7 in the model"),
        ({"norm": "group"}, "norm is batch in the file, group in the model"),
    ],
)
def test_another_network_is_refused_and_left_as_it_was(
    make_backbone: Make, tmp_path: Path, options: dict[str, object], cause: str
) -> None:
    path = save_weights(make_backbone(seed=1), tmp_path / "a.safetensors")
    model = make_backbone(seed=2, **options)
    before = snapshot(model)
    with pytest.raises(WeightsError, match=cause) as caught:
        load_weights(model, path)
    assert "a.safetensors was not loaded and the model is unchanged" in str(caught.value)
    assert_same(model, before)


def test_channels_that_cannot_be_adapted_are_refused(make_backbone: Make, tmp_path: Path) -> None:
    path = save_weights(make_backbone(in_channels=2), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"input channels differ \(2 in the file, 3 in the mod"):
        load_weights(make_backbone(in_channels=3), path)


def test_renamed_keys_are_refused_with_the_nearest_names(
    make_backbone: Make, tmp_path: Path
) -> None:
    backbone = make_backbone()
    file = read_weight_file(save_weights(backbone, tmp_path / "a.safetensors"))
    renamed = {name.replace("norm", "bn"): tensor for name, tensor in file.tensors.items()}
    write_weight_file(file.path, renamed, file.header)
    before = snapshot(backbone)
    with pytest.raises(WeightsError, match=r"the model's norm1\.bias and the file's bn1\.bias"):
        load_weights(backbone, file.path)
    assert_same(backbone, before)


def test_keys_that_match_nothing_are_refused(
    make_backbone: Make, tmp_path: Path, header: WeightHeader
) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {"encoder.block.kernel": torch.ones(2), "decoder.block.kernel": torch.ones(2)}
    write_weight_file(path, tensors, header)
    with pytest.raises(WeightsError, match=r"0\.0% of .*\n(.*\n)*.*another family of networks"):
        load_weights(make_backbone(), path)


def test_skipping_by_name_makes_it_load(make_backbone: Make, tmp_path: Path) -> None:
    trained = make_backbone(seed=1)
    path = save_weights(trained, tmp_path / "a.safetensors")
    model = make_backbone(seed=2, stem_kernel=5)
    stem = model.state_dict()["conv1.weight"].clone()
    with pytest.raises(WeightsError, match=r"skip=\('conv1\.weight',\)"):
        load_weights(model, path)
    with pytest.raises(WeightsError, match=r"more of the backbone was skipped|stem_kernel"):
        load_weights(model, path, skip=["conv1"])
    report = load_weights(model, path, skip=["conv1"], min_coverage=0.4)
    assert report.skipped == {"conv1.weight": "named by the caller"}
    total = sum(p.numel() for p in model.parameters())
    assert report.coverage == pytest.approx(1 - 500 / total)
    assert torch.equal(model.state_dict()["conv1.weight"], stem)
    assert torch.equal(model.state_dict()["norm1.weight"], trained.state_dict()["norm1.weight"])


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_an_impossible_share_is_refused(make_backbone: Make, tmp_path: Path, share: float) -> None:
    path = save_weights(make_backbone(), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="min_coverage is a share from 0 to 1"):
        load_weights(make_backbone(), path, min_coverage=share)


def test_a_misspelt_skip_is_refused(make_backbone: Make, tmp_path: Path) -> None:
    path = save_weights(make_backbone(seed=1), tmp_path / "a.safetensors")
    model = make_backbone(seed=2)
    before = snapshot(model)
    with pytest.raises(WeightsError, match="skip names 'stem'"):
        load_weights(model, path, skip=["stem"])
    assert_same(model, before)


def test_files_without_batch_counters_load(make_backbone: Make, tmp_path: Path) -> None:
    backbone = make_backbone(seed=1)
    file = read_weight_file(save_weights(backbone, tmp_path / "a.safetensors"))
    kept = {n: t for n, t in file.tensors.items() if not n.endswith("num_batches_tracked")}
    write_weight_file(file.path, kept, file.header)
    report = load_weights(make_backbone(seed=2), file.path)
    assert len(report.adapted) == 2
    assert report.coverage == 1


@pytest.mark.parametrize("damage", ["cut", "nan", "bare", "pickle"])
def test_a_damaged_file_leaves_the_model_as_it_was(
    make_backbone: Make, tmp_path: Path, damage: str
) -> None:
    path = save_weights(make_backbone(seed=1), tmp_path / "a.safetensors")
    state = make_backbone(seed=1).state_dict()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "pickle":
        torch.save(state, path)
    elif damage == "bare":
        safetensors.torch.save_file(state, path)
    else:
        # The last four bytes are one float32 number; all ones make it NaN.
        path.write_bytes(path.read_bytes()[:-4] + b"\xff" * 4)
    model = make_backbone(seed=2)
    before = snapshot(model)
    with pytest.raises(WeightsError, match=r"a\.safetensors"):
        load_weights(model, path)
    assert_same(model, before)


def test_a_compiled_model_loads_and_saves_under_plain_names(
    make_classifier: Make, wrap: Make, tmp_path: Path
) -> None:
    trained, model = make_classifier(seed=1), make_classifier(seed=2)
    model.backbone = wrap(model.backbone)
    path = save_weights(trained, tmp_path / "a.safetensors")
    assert load_weights(model, path, head="required").coverage == 1
    again = read_weight_file(save_weights(model, tmp_path / "b.safetensors"))
    first = read_weight_file(path)
    assert again.header.provenance == {"start_sha256": first.sha256}
    assert again.header.model_copy(update={"provenance": {}}) == first.header
    torch.testing.assert_close(again.tensors, first.tensors, rtol=0, atol=0)


def test_loading_is_logged(
    make_backbone: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = save_weights(make_backbone(), tmp_path / "a.safetensors", licence="CC0")
    caplog.set_level(logging.INFO, logger="voxlift.weights.load")
    report = load_weights(make_backbone(), path)
    assert report.licence == "CC0"
    assert caplog.records[-1].getMessage() == f"Loaded {report}"
    assert "100.0% of the backbone's" in caplog.text


def test_the_file_can_be_gone_after_loading(make_backbone: Make, tmp_path: Path) -> None:
    trained, model = make_backbone(seed=1), make_backbone(seed=2)
    path = save_weights(trained, tmp_path / "a.safetensors")
    load_weights(model, path)
    path.write_bytes(b"")
    path.unlink()
    assert_same(model, trained.state_dict())
