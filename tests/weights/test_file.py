import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from voxlift.core.errors import DataError, WeightsError
from voxlift.nets.factory import create_backbone
from voxlift.weights.file import read_header, read_weight_file, write_weight_file
from voxlift.weights.header import HEADER_KEY, WeightHeader
from voxlift.weights.layouts import to_medicalnet
from voxlift.weights.load import load_weights


def test_tensors_and_header_survive(tmp_path: Path, header: WeightHeader) -> None:
    tensors = {
        "conv1.weight": torch.randn(4, 1, 3, 3, 3),
        "norm1.num_batches_tracked": torch.tensor(12),
        "scalar": torch.tensor(0.5, dtype=torch.float64),
    }
    path = tmp_path / "new" / "a.safetensors"
    write_weight_file(path, tensors, header)
    file = read_weight_file(path)
    assert (file.path, file.format, file.header, file.ignored) == (path, "voxlift", header, {})
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert file.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert file.tensors[name].dtype == tensor.dtype
        assert torch.equal(file.tensors[name], tensor)
    assert read_header(path) == header


def test_another_reader_of_the_format_finds_the_same(weight_path: Path) -> None:
    data = weight_path.read_bytes()
    num_bytes = int.from_bytes(data[:8], "little")
    listing = json.loads(data[8 : 8 + num_bytes])
    assert listing["__metadata__"].keys() == {HEADER_KEY}
    assert json.loads(listing["__metadata__"][HEADER_KEY])["architecture"]["name"] == "resnet10"
    assert torch.equal(
        safetensors.torch.load_file(weight_path)["conv1.weight"],
        torch.arange(8.0).reshape(2, 4),
    )


def test_the_same_weights_give_the_same_bytes(tmp_path: Path, header: WeightHeader) -> None:
    tensors = {f"t{i}": torch.randn(3) for i in range(20)}
    paths = [tmp_path / f"{i}.safetensors" for i in range(4)]
    for path in paths:
        write_weight_file(path, dict(reversed(tensors.items())), header)
    assert len({path.read_bytes() for path in paths}) == 1


def test_tensors_in_any_layout_are_written_right(tmp_path: Path, header: WeightHeader) -> None:
    kernel = torch.randn(4, 2, 3, 3, 3)
    shared = torch.randn(6, 6)
    tensors = {
        "channels_last": kernel.to(memory_format=torch.channels_last_3d),
        "transposed": shared.T,
        "view": shared[1:3],
        "whole": shared,
        "learnt": torch.nn.Parameter(shared),
        "empty": torch.zeros(0, 3),
    }
    path = tmp_path / "a.safetensors"
    write_weight_file(path, tensors, header)
    read = read_weight_file(path).tensors
    for name, tensor in tensors.items():
        assert torch.equal(read[name], tensor), name


def test_half_keeps_what_is_small_in_full(tmp_path: Path, header: WeightHeader) -> None:
    tensors = {
        "conv1.weight": torch.randn(8, 1, 3, 3, 3),
        "empty": torch.zeros(0, 3),
        "norm1.running_var": torch.tensor([1e-8, 1e6]),
        "norm1.num_batches_tracked": torch.tensor(3),
    }
    path = tmp_path / "a.safetensors"
    write_weight_file(path, tensors, header, half=True)
    read = read_weight_file(path).tensors
    assert read["conv1.weight"].dtype == torch.float16
    torch.testing.assert_close(
        read["conv1.weight"].float(), tensors["conv1.weight"], rtol=2**-11, atol=1e-7
    )
    assert torch.equal(read["norm1.running_var"], tensors["norm1.running_var"])
    assert read["norm1.num_batches_tracked"].dtype == torch.int64


def test_what_float16_cannot_hold_is_refused(tmp_path: Path, header: WeightHeader) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(WeightsError, match=r"conv1\.weight holds 1e\+05, more than float16"):
        write_weight_file(path, {"conv1.weight": torch.full((2, 2), -1e5)}, header, half=True)
    assert not list(tmp_path.iterdir())


def test_nothing_unfit_is_written(weight_path: Path, header: WeightHeader) -> None:
    before = weight_path.read_bytes()
    unfit = {
        "NaN": {"a": torch.tensor([1.0, float("nan")])},
        "meta device": {"a": torch.ones(2, device="meta")},
        "no tensor but int": {"a": 3},
        "no tensors": {},
        "dtype torch.complex64": {"a": torch.ones(2, dtype=torch.complex64)},
    }
    for what, tensors in unfit.items():
        with pytest.raises(WeightsError, match=what):
            write_weight_file(weight_path, tensors, header)  # type: ignore[arg-type]
    assert weight_path.read_bytes() == before
    assert list(weight_path.parent.iterdir()) == [weight_path]


@pytest.mark.parametrize("name", ["a.pt", "a", "a.safetensors.tmp"])
def test_only_the_right_ending_is_written(tmp_path: Path, header: WeightHeader, name: str) -> None:
    with pytest.raises(WeightsError, match=r"does not end in \.safetensors.*Call it a\.safetenso"):
        write_weight_file(tmp_path / name, {"a": torch.ones(1)}, header)


def test_a_full_disk_leaves_the_old_file(
    weight_path: Path, header: WeightHeader, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = weight_path.read_bytes()

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(DataError, match=r"whole\.safetensors .*No space left"):
        write_weight_file(weight_path, {"a": torch.ones(1)}, header)
    assert weight_path.read_bytes() == before


def test_a_header_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    safetensors.torch.save_file({"a": torch.ones(1)}, path)
    with pytest.raises(WeightsError, match="no Voxlift header"):
        read_header(path)
    with pytest.raises(WeightsError, match="no Voxlift header"):
        read_weight_file(path)


def test_networks_beside_the_chosen_one_are_named(make_backbone: Any, tmp_path: Path) -> None:
    state = make_backbone().state_dict()
    network = create_backbone("resnet10", width=4, geometry="medicalnet")
    names = to_medicalnet(network)["state_dict"]
    other = {name: tensor + 1 for name, tensor in state.items()}
    path = tmp_path / "two.pth"
    torch.save({"student": names, "teacher": other, "epoch": 1}, path)
    file = read_weight_file(path, declared="medicalnet")
    assert file.ignored["teacher"] == "a dictionary of tensors, not read: student is taken"
    assert load_weights(network, file).ignored["teacher"] == file.ignored["teacher"]
