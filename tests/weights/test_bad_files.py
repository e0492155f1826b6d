import io
import json
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from voxlift.core.errors import WeightsError
from voxlift.nets.factory import create_backbone
from voxlift.weights.container import read_container, read_metadata
from voxlift.weights.file import read_weight_file, write_weight_file
from voxlift.weights.header import WeightHeader
from voxlift.weights.load import load_weights
from voxlift.weights.save import save_weights

Make = Callable[..., Any]
both_kinds = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
NUM_TRIALS = 120


def saved(content: object, *, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def refused(path: Path, match: str) -> None:
    with pytest.raises(WeightsError, match=match):
        read_container(path)


def repacked(data: bytes, how: int = zipfile.ZIP_STORED, *, more: str = "") -> bytes:
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(stream, "w", how) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
        if more:
            new.writestr(more, b"other")
    return stream.getvalue()


CONTENT = {"state_dict": {"conv1.weight": torch.ones(40, 3), "bn": torch.ones(7).half()}}


@both_kinds
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.05, 0.2, 0.5, 0.9, 0.999])
def test_a_cut_off_file_is_refused(tmp_path: Path, kept: float, *, legacy: bool) -> None:
    data = saved(CONTENT, legacy=legacy)
    path = write(tmp_path / "a.pth", data[: int(kept * len(data))])
    refused(path, r"a\.pth is (an empty file|damaged or cut off|no safetensors|a pickled file)")


def test_one_changed_number_is_noticed_in_an_archive(tmp_path: Path) -> None:
    data = bytearray(saved(CONTENT))
    data[data.find(struct.pack("<4f", 1, 1, 1, 1)) + 2] ^= 1
    refused(write(tmp_path / "a.pth", bytes(data)), "archive/data/0 has another check sum")


@both_kinds
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(
    tmp_path: Path, bad: float, *, legacy: bool
) -> None:
    tensor = torch.ones(10)
    tensor[3] = bad
    data = saved({"good": torch.ones(2), "conv1.weight": tensor}, legacy=legacy)
    refused(write(tmp_path / "a.pth", data), r"1 of the 10 numbers in conv1\.weight")


@pytest.mark.parametrize(
    ("tensor", "what"),
    [
        (torch.ones(2, dtype=torch.complex64), "complex64"),
        (torch.ones(2).to(torch.float8_e4m3fn), "float8"),
        (torch.ones(2).to(torch.uint16), "uint16"),
        (torch.ones(2, 2).to_sparse(), "holds sparse tensors"),
        (torch.ones(2, 2, device="meta"), "holds meta tensors"),
        (torch.ones(1).expand(5), r"a\.pth: tensor a is stretched .*contiguous"),
    ],
)
def test_tensors_of_other_kinds_are_refused(
    tmp_path: Path, tensor: torch.Tensor, what: str
) -> None:
    data = saved({"a": tensor, "b": torch.ones(1)})
    refused(write(tmp_path / "a.pth", data), what)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@both_kinds
def test_quantized_tensors_are_refused(tmp_path: Path, *, legacy: bool) -> None:
    tensor = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    refused(write(tmp_path / "a.pth", saved({"a": tensor}, legacy=legacy)), "holds quantized")


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    bomb = saved({"a": torch.zeros(1_000_000)})
    path = write(tmp_path / "a.pth", repacked(bomb, zipfile.ZIP_DEFLATED))
    assert path.stat().st_size < 10_000
    refused(path, "is compressed or encrypted")


def test_entries_that_lie_over_each_other_are_refused(tmp_path: Path) -> None:
    data = bytearray(saved({"a": torch.zeros(1000)}))
    for entry in zipfile.ZipFile(io.BytesIO(data)).infolist():
        # Every entry of the list claims to be the whole file.
        at = data.rfind(entry.filename.encode()) - 46
        data[at + 20 : at + 28] = struct.pack("<2L", len(data), len(data))
    refused(write(tmp_path / "a.pth", bytes(data)), r"(pretends to hold|damaged)")


def test_an_absurd_number_of_entries_is_refused(tmp_path: Path) -> None:
    entry = saved({"a": torch.zeros(1)})
    at = entry.rfind(b"PK\x05\x06")
    many = bytearray(entry)
    many[at + 12 : at + 16] = struct.pack("<L", 2**31)
    refused(write(tmp_path / "a.pth", bytes(many)), "a list of entries of 2,147,483,648 bytes")


def test_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    data = repacked(saved(CONTENT), more="archive/DATA.pkl")
    refused(write(tmp_path / "a.pth", data), "two entries of its archive have the same name")


def test_an_entry_that_is_not_where_it_should_be_is_refused(tmp_path: Path) -> None:
    data = bytearray(saved(CONTENT))
    at = data.find(b"PK\x03\x04", 10)
    data[at] = 0
    refused(write(tmp_path / "a.pth", bytes(data)), "is not where its archive says")


def test_a_long_list_of_tensors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxlift.weights.archive.MAX_PICKLE_BYTES", 50)
    refused(write(tmp_path / "a.pth", saved(CONTENT)), "lists its tensors in .* at most 50 are")
    monkeypatch.setattr("voxlift.weights.archive.MAX_PICKLE_BYTES", 5000)
    monkeypatch.setattr("voxlift.weights.pickle_machine.MAX_STEPS", 10)
    refused(write(tmp_path / "a.pth", saved(CONTENT)), "it has no end")


@pytest.mark.parametrize("num_items", [119, 121, 2**40, -1])
def test_a_legacy_block_of_another_size_than_announced_is_refused(
    tmp_path: Path, num_items: int
) -> None:
    data = bytearray(saved(CONTENT, legacy=True))
    at = data.find(struct.pack("<q4f", 120, 1, 1, 1, 1))
    assert at > 0
    data[at : at + 8] = struct.pack("<q", num_items)
    refused(write(tmp_path / "a.pth", bytes(data)), "block .* should have 480 bytes and has")


def test_a_legacy_block_that_is_larger_than_the_file_is_refused(tmp_path: Path) -> None:
    data = saved(CONTENT, legacy=True).replace(b"K\x78N", b"J\xff\xff\xff\x7fN")
    refused(write(tmp_path / "a.pth", data), "should have 8,589,934,588 bytes and has 480")


def test_a_legacy_block_that_is_never_filled_is_refused(tmp_path: Path) -> None:
    other = saved({"a": torch.ones(1)}, legacy=True)
    data = saved(CONTENT, legacy=True)
    # The list of blocks of another file: none of ours would be read, and memory be left as it is.
    tail = other[other.rfind(b"\x80\x02") :]
    refused(write(tmp_path / "a.pth", data[: data.rfind(b"\x80\x02")] + tail), "are not those that")


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", ["zip", "legacy", "unchecked", "safetensors"])
def test_damage_of_any_kind_is_refused_or_does_not_matter(
    tmp_path: Path, kind: str, seed: int
) -> None:
    content = {**CONTENT, "epoch": np.float64(3), "array": np.arange(3)}
    if kind == "safetensors":
        whole = safetensors.torch.save(CONTENT["state_dict"], metadata={"key": "value"})
    else:
        whole = saved(content, legacy=kind == "legacy")
    source = random.Random(seed)
    path = tmp_path / "a.bin"
    num_refused = 0
    for _ in range(NUM_TRIALS):
        data = bytearray(whole)
        if source.random() < 0.2:
            del data[source.randrange(len(data)) :]
        for _ in range(source.choice([1, 1, 2, 5])):
            if data:
                data[source.randrange(len(data))] = source.randrange(256)
        if kind == "unchecked":
            data = _damaged_pickle(whole, source)
        path.write_bytes(data)
        try:
            container = read_container(path)
        except WeightsError:
            num_refused += 1
        else:
            assert all(torch.isfinite(tensor).all() for tensor in container.tensors.values())
    assert num_refused > NUM_TRIALS // 10


def _damaged_pickle(whole: bytes, source: random.Random) -> bytearray:
    """Damage the pickle of an archive and pack it with the right check sums."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(stream, "w") as new:
        for entry in old.infolist():
            data = bytearray(old.read(entry))
            if entry.filename.endswith("data.pkl"):
                for _ in range(source.choice([1, 1, 2])):
                    data[source.randrange(len(data))] = data[source.randrange(len(data))]
            new.writestr(entry.filename, bytes(data))
    return bytearray(stream.getvalue())


def test_an_ordinary_zip_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "x")
    refused(path, r"a zip archive, but none of torch\.save")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fold_0/checkpoint_final.pth", "x")
    refused(path, r"Unpack it and give the file inside, such as fold_0/checkpoint_final\.pth")
    with zipfile.ZipFile(path, "w"):
        pass
    refused(path, "no safetensors file")


def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.ones(3))
    refused(tmp_path / "a.npz", r"\.npz archive of NumPy arrays.*torch\.save")
    np.save(tmp_path / "a.npy", np.ones(3))
    refused(tmp_path / "a.npy", "an array of NumPy")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("a.pth"))
    refused(tmp_path / "a.tar", "a tar archive; unpack it")
    for name, what in (
        ("a.onnx", "an ONNX file"),
        ("model.ckpt-1.index", "TensorFlow"),
        ("model.ckpt-1.data-00000-of-00001", "TensorFlow"),
        ("saved_model.pb", "TensorFlow"),
    ):
        refused(write(tmp_path / name, b"\x08\x07\x12\x07pytorch" * 10), what)


def test_a_pickled_file_has_no_header_to_read(tmp_path: Path) -> None:
    for legacy in (False, True):
        path = write(tmp_path / "a.pth", saved(CONTENT, legacy=legacy))
        with pytest.raises(WeightsError, match=r"torch\.save\. Expected a \.safetensors file"):
            read_metadata(path)


def test_a_folder_and_nothing_at_all_are_named(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder")
    refused(tmp_path / "a.pth", "does not exist")
    refused(write(tmp_path / "a.pth", b""), "an empty file")


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", saved(CONTENT))
    path.chmod(0)
    try:
        path.read_bytes()
    except PermissionError:
        refused(path, "could not be read: Permission denied")
    else:
        pytest.skip("this user may read everything")


def test_names_that_match_nothing_are_refused_and_change_nothing(
    make_backbone: Make, tmp_path: Path, header: WeightHeader
) -> None:
    model = make_backbone()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = tmp_path / "a.safetensors"
    write_weight_file(path, {"encoder.stem.weight": torch.ones(2), "x": torch.ones(2)}, header)
    with pytest.raises(WeightsError, match=r"encoder\.stem\.weight"):
        load_weights(model, path)
    pickled = write(tmp_path / "a.pth", saved({"net": {"zzz.weight": torch.ones(2)}}))
    with pytest.raises(WeightsError, match=r"unknown layout.*zzz\.weight"):
        load_weights(model, pickled)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("stored", "wanted"), [("resnet18", "resnet34"), ("resnet34", "resnet18")])
def test_a_file_of_another_depth_is_refused(tmp_path: Path, stored: str, wanted: str) -> None:
    path = save_weights(create_backbone(stored, width=4, stem=3), tmp_path / "a.safetensors")
    model = create_backbone(wanted, width=4, stem=3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError, match=rf"(?s){stored}.*{wanted}|{wanted}.*{stored}") as caught:
        load_weights(model, path)
    assert "layer1.2" in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    data = saved({"conv1.weight": torch.ones(2)})
    at = data.index(b"PK\x01\x02")
    # The entry says that its name is UTF-8.
    broken = bytearray(data)
    broken[at + 9] |= 8
    broken[at + 46] = 0xFF
    refused(write(tmp_path / "a.pth", bytes(broken)), "damaged or cut off")
    with pytest.raises(WeightsError, match="damaged or cut off"):
        read_weight_file(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"width": 4', '"width": 9223372036854775807', "cannot be made"),
        ('"width": 4', '"width": 30000', r"a network of [\d,]+ numbers, and holds"),
    ],
)
def test_a_header_of_a_far_larger_network_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    ours = tmp_path / "ours.safetensors"
    save_weights(create_backbone("resnet10", width=4), ours)
    data = ours.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    (key,) = header["__metadata__"]
    assert old in header["__metadata__"][key]
    header["__metadata__"][key] = header["__metadata__"][key].replace(old, new)
    text = json.dumps(header).encode()
    ours.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(WeightsError, match=message):
        create_backbone(weights=str(ours))
