import argparse
import collections
import hashlib
import pathlib
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from voxlift.core.errors import WeightsError
from voxlift.weights.container import Container, read_container
from voxlift.weights.unwrap import WRAPPERS

both_kinds = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def store(path: Path, content: object, *, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def load(path: Path, content: object, *, legacy: bool = False) -> Container:
    return read_container(store(path, content, legacy=legacy))


def some_tensors() -> dict[str, torch.Tensor]:
    return {
        "module.conv1.weight": torch.randn(4, 1, 3, 3, 3),
        "module.bn1.num_batches_tracked": torch.tensor(7),
        "half": torch.randn(5).half(),
        "bfloat": torch.randn(5).bfloat16(),
        "mask": torch.tensor([True, False]),
        "none": torch.ones(0, 3),
    }


@both_kinds
@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.tar", "a.model", "a.safetensors", "a"])
def test_tensors_come_back_under_their_own_names(
    tmp_path: Path, name: str, *, legacy: bool
) -> None:
    tensors = some_tensors()
    container = load(tmp_path / name, tensors, legacy=legacy)
    assert list(container.tensors) == list(tensors)
    for key, tensor in tensors.items():
        assert container.tensors[key].dtype == tensor.dtype
        assert torch.equal(container.tensors[key], tensor)
    assert container.wrapper == ""
    assert container.metadata == {}
    assert container.extras == {}
    assert container.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


@both_kinds
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_key_of_the_tensors_is_found(tmp_path: Path, wrapper: str, *, legacy: bool) -> None:
    content = {"epoch": 12, wrapper: some_tensors(), "meta": {"arch": "x", "sizes": (1, 2.5)}}
    container = load(tmp_path / "a.pth", content, legacy=legacy)
    assert container.wrapper == wrapper
    assert list(container.tensors) == list(some_tensors())
    assert container.extras == {"epoch": 12, "meta": {"arch": "x", "sizes": [1, 2.5]}}


def test_the_first_key_is_taken_and_the_other_named(tmp_path: Path) -> None:
    content = {"teacher": {"a": torch.zeros(2)}, "student": {"a": torch.ones(2)}}
    container = load(tmp_path / "a.pth", content)
    assert container.wrapper == "student"
    assert torch.equal(container.tensors["a"], torch.ones(2))
    assert container.extras == {"teacher": "a dictionary of tensors, not read: student is taken"}


def test_nested_keys_are_followed(tmp_path: Path) -> None:
    content = {"model": {"state_dict": {"a": torch.ones(2)}, "epoch": 3}, "epoch": 4}
    container = load(tmp_path / "a.pth", content)
    assert container.wrapper == "model.state_dict"
    assert list(container.tensors) == ["a"]
    assert container.extras == {"epoch": 4, "epoch'": 3}


def test_what_is_no_tensor_among_them_is_told(tmp_path: Path) -> None:
    state = {"a": torch.ones(2), "b": torch.ones(2), "version": 2, "_extra_state": None, 3: "x"}
    container = load(tmp_path / "a.pth", {"state_dict": {**state, "c": torch.ones(1)}})
    assert list(container.tensors) == ["a", "b", "c"]
    assert container.extras == {"version": 2, "_extra_state": None, "(3)": "x"}


def test_a_module_s_own_dictionary_is_read(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2))
    container = load(tmp_path / "a.pth", module.state_dict())
    assert list(container.tensors) == list(module.state_dict())


@both_kinds
def test_parameters_become_plain_tensors(tmp_path: Path, *, legacy: bool) -> None:
    marked = nn.Parameter(torch.ones(3))
    marked.no_decay = True  # type: ignore[attr-defined]
    content = {
        "a": nn.Parameter(torch.ones(2, 3)),
        "b": marked,
        "c": torch.ones(2).requires_grad_(),
    }
    for tensor in load(tmp_path / "a.pth", content, legacy=legacy).tensors.values():
        assert type(tensor) is torch.Tensor
        assert not tensor.requires_grad
        assert not vars(tensor)


def test_tensors_with_attributes_are_read(tmp_path: Path) -> None:
    tensor = torch.ones(3)
    tensor.note = "x"  # type: ignore[attr-defined]
    assert not vars(load(tmp_path / "a.pth", {"a": tensor}).tensors["a"])


@both_kinds
def test_tensors_that_share_numbers_or_lie_otherwise_are_read(
    tmp_path: Path, *, legacy: bool
) -> None:
    whole = torch.randn(2, 3, 4, 5, 6)
    content = {
        "whole": whole,
        "again": whole,
        "part": whole[1:, 1],
        "turned": whole.transpose(0, 2),
        "last": whole.to(memory_format=torch.channels_last_3d),
        "stepped": whole[..., ::2],
    }
    container = load(tmp_path / "a.pth", content, legacy=legacy)
    for name, tensor in content.items():
        assert torch.equal(container.tensors[name], tensor)
    assert container.tensors["whole"].data_ptr() == container.tensors["again"].data_ptr()


@both_kinds
def test_plain_values_beside_the_tensors_are_kept_as_plain_values(
    tmp_path: Path, *, legacy: bool
) -> None:
    content = {
        "network_weights": some_tensors(),
        "numpy": [np.float64(1.5), np.float32(0.25), np.int64(-3), np.bool_(True)],
        "swapped": np.arange(3, dtype=">i4"),
        "array": np.arange(6.0).reshape(2, 3),
        "long": np.zeros((40, 50)),
        "words": np.array(["a", "b"]),
        "dtype": np.dtype("float32"),
        "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("/a/b")),
        "more_args": types.SimpleNamespace(depth=18),
        "logging": collections.defaultdict(list, {"loss": [np.float32(0.5)]}),
        "ordered": collections.OrderedDict(a=1),
        "counted": collections.Counter("aab"),
        "frozen": frozenset([1]),
        "set": {1},
        "device": torch.device("cuda", 0),
        "precision": torch.bfloat16,
        "size": torch.Size([1, 2]),
        "large": 2**70,
        "complex": 1j,
        "bytes": b"abc",
        "buffer": bytearray(b"abc"),
        "stray": torch.ones(2, 3),
        "nothing": None,
        (1, "a"): "odd key",
    }
    assert load(tmp_path / "a.pth", content, legacy=legacy).extras == {
        "numpy": [1.5, 0.25, -3, True],
        "swapped": [0, 1, 2],
        "array": [0, 1, 2, 3, 4, 5],
        "long": "array of f8, 40 x 50",
        "words": "array of U1, 2",
        "dtype": "f4",
        "args": {"lr": 0.1, "out": "/a/b"},
        "more_args": {"depth": 18},
        "logging": {"loss": [0.5]},
        "ordered": {"a": 1},
        "counted": {"a": 2, "b": 1},
        "frozen": [1],
        "set": [1],
        "device": "cuda:0",
        "precision": "torch.bfloat16",
        "size": [1, 2],
        "large": 2**70,
        "complex": "(a complex)",
        "bytes": "(a bytes)",
        "buffer": "(a bytearray)",
        "stray": "tensor of float32, 2 x 3",
        "nothing": None,
        "((1, 'a'))": "odd key",
    }


def test_an_optimizer_is_named_and_not_kept(tmp_path: Path) -> None:
    module = nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    content = {
        "state_dict": module.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "optimizer_name": "AdamW",
    }
    assert load(tmp_path / "a.pth", content).extras == {
        "optimizer_state": "state of an optimizer, not read",
        "optimizer_name": "AdamW",
    }


def test_a_checkpoint_of_lightning_is_read(tmp_path: Path) -> None:
    content = {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": collections.OrderedDict({"net.a": torch.ones(2)}),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 4}}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': 'loss'}": {"best_model_score": torch.tensor(1.0)}
        },
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}],
        "lr_schedulers": [{"last_epoch": 3}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "spacing": (1.0, 1.0, 2.5)},
    }
    container = load(tmp_path / "a.ckpt", content)
    assert container.wrapper == "state_dict"
    assert list(container.tensors) == ["net.a"]
    assert container.extras["hyper_parameters"] == {"lr": 0.1, "spacing": [1.0, 1.0, 2.5]}
    assert container.extras["optimizer_states"] == "state of an optimizer, not read"


def test_long_extras_are_cut_short(tmp_path: Path) -> None:
    content = {
        "state_dict": {"a": torch.ones(2)},
        "text": "x" * 200_000,
        "numbers": list(range(50_000)),
        "later": {"a": [1]},
    }
    extras = load(tmp_path / "a.pth", content).extras
    assert len(str(extras["text"])) < 101_000
    assert str(extras["numbers"]).endswith("(left out: too much)']")
    assert "left out" in str(extras["later"])


@both_kinds
@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({}, "an empty dictionary"),
        ({"encoder": {"a": torch.ones(2)}, "epoch": 3}, "the keys encoder, epoch"),
        ([torch.ones(2)], "one list"),
        (torch.ones(2), "one Tensor"),
        ({"model": {}, "state_dict": None}, "the keys model, state_dict"),
        ({"a": torch.ones(1), "b": 1, "c": 2, "d": 3}, "the keys a, b, c, d"),
    ],
)
def test_a_file_without_a_dictionary_of_tensors_is_refused(
    tmp_path: Path, content: object, what: str, *, legacy: bool
) -> None:
    with pytest.raises(WeightsError, match=rf"holds .*{what}\. Expected a dictionary of tensors"):
        load(tmp_path / "a.pth", content, legacy=legacy)


def test_what_others_allow_to_be_unpickled_is_neither_used_nor_lost(tmp_path: Path) -> None:
    path = store(tmp_path / "a.pth", {"a": torch.ones(2), "b": torch.ones(1), "c": nn.ReLU()})
    with torch.serialization.safe_globals([nn.ReLU, np.dtype]):
        before = set(torch.serialization.get_safe_globals())
        with pytest.raises(WeightsError, match=r"torch\.nn\.modules\.activation\.ReLU"):
            read_container(path)
        load(tmp_path / "b.pth", {"a": torch.ones(2), "b": np.float32(1)})
        assert set(torch.serialization.get_safe_globals()) == before


def test_check_sums_that_were_left_out_are_no_error(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(compute_crc32=False)
    try:
        path = store(tmp_path / "a.pth", some_tensors())
    finally:
        torch.serialization.set_crc32_options(before)
    assert list(read_container(path).tensors) == list(some_tensors())
