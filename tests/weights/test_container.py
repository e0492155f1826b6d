import gzip
import hashlib
import json
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from voxlift.core.errors import WeightsError
from voxlift.weights.container import MAX_HEADER_BYTES, check_numbers, read_container, read_metadata


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_reads_tensors_texts_and_the_hash(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(7)}
    data = safetensors.torch.save(tensors, metadata={"note": "hello"})
    container = read_container(write(tmp_path / "a.safetensors", data))
    assert container.metadata == {"note": "hello"}
    assert container.sha256 == hashlib.sha256(data).hexdigest()
    assert set(container.tensors) == {"a", "n"}
    torch.testing.assert_close(container.tensors["a"], tensors["a"])
    assert int(container.tensors["n"]) == 7


def test_a_file_without_metadata_has_no_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", safetensors.torch.save({"a": torch.ones(1)}))
    assert read_metadata(path) == {}


def test_a_header_length_that_looks_like_another_format_is_no_obstacle(tmp_path: Path) -> None:
    # 0x0280 in little-endian begins like a pickle, 0x3c like a web page.
    tensors = {"a": torch.ones(1)}
    padding = 0x280 - len(json.dumps({"__metadata__": {"p": ""}})) - 64
    for extra in range(padding, padding + 80):
        data = safetensors.torch.save(tensors, metadata={"p": "x" * extra})
        if data[:2] == b"\x80\x02":
            break
    assert data[:2] == b"\x80\x02"
    assert "a" in read_container(write(tmp_path / "a.safetensors", data)).tensors


@pytest.mark.parametrize("kept", [0, 4, 9, 60, -1])
def test_a_cut_off_file_is_refused(weight_path: Path, kept: int) -> None:
    weight_path.write_bytes(weight_path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"whole\.safetensors .*(empty|cut off|damaged|missing)"):
        read_container(weight_path)


def test_a_file_with_more_than_its_header_lists_is_refused(weight_path: Path) -> None:
    weight_path.write_bytes(weight_path.read_bytes() + b"more")
    with pytest.raises(WeightsError, match="damaged"):
        read_container(weight_path)


@pytest.mark.parametrize("num_bytes", [MAX_HEADER_BYTES + 1, 100 * 1024**3, 2**64 - 1])
def test_a_huge_header_is_refused_before_it_is_read(tmp_path: Path, num_bytes: int) -> None:
    path = write(tmp_path / "a.safetensors", num_bytes.to_bytes(8, "little") + b"{}")
    with pytest.raises(WeightsError, match=f"header of {num_bytes:,} bytes"):
        read_container(path)


def test_a_header_longer_than_the_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", (1000).to_bytes(8, "little") + b"{}")
    with pytest.raises(WeightsError, match=r"needs 1,008 bytes and the whole file has 10"):
        read_container(path)


def test_a_header_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", (8).to_bytes(8, "little") + b"{no json" + b"1234")
    with pytest.raises(WeightsError, match="damaged"):
        read_container(path)


def test_tensors_that_overlap_or_lie_outside_are_refused(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    for offsets in ([0, 4], [4, 8], [8, 4]):
        entries = {"a": entry, "b": {**entry, "data_offsets": offsets}}
        listing = json.dumps(entries).encode()
        data = len(listing).to_bytes(8, "little") + listing + b"\0" * 4
        with pytest.raises(WeightsError, match="damaged"):
            read_container(write(tmp_path / "a.safetensors", data))


class Trap:
    """Pickled code: opening it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    plain = write(tmp_path / "old.pth", pickle.dumps(Trap(trap), protocol=2))
    with pytest.raises(WeightsError, match=r"pickled file, but none of torch\.save"):
        read_container(plain)
    zipped = tmp_path / "new.safetensors"
    torch.save({"a": Trap(trap)}, zipped)
    with pytest.raises(WeightsError, match="asks for more than tensors"):
        read_container(zipped)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (gzip.compress(b"x" * 99, mtime=0), "gzip"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 20, "HDF5"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        (b"<!doctype html><html></html>", "web page"),
        (b"hello, this is a text", "no safetensors"),
        (b"", "an empty file"),
    ],
)
def test_other_files_are_named(tmp_path: Path, start: bytes, what: str) -> None:
    with pytest.raises(WeightsError, match=what):
        read_container(write(tmp_path / "a.safetensors", start))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_numbers_that_are_not_finite_are_refused(
    tmp_path: Path, bad: float, dtype: torch.dtype
) -> None:
    tensor = torch.zeros(1000, dtype=dtype)
    tensor[[3, 700]] = bad
    data = safetensors.torch.save({"good": torch.ones(2), "conv1.weight": tensor})
    with pytest.raises(WeightsError, match=r"2 of the 1,000 numbers in conv1\.weight"):
        read_container(write(tmp_path / "a.safetensors", data))


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    data = safetensors.torch.save({"a": torch.ones(2).to(torch.float8_e4m3fn)})
    with pytest.raises(WeightsError, match="float8"):
        read_container(write(tmp_path / "a.safetensors", data))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path, weight_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.safetensors does not exist"):
        read_container(tmp_path / "gone.safetensors")
    with pytest.raises(WeightsError, match=r"is a folder, .*name the file"):
        read_container(tmp_path)
    weight_path.rename(tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"did you mean .*model\.safetensors"):
        read_container(tmp_path)


def test_a_file_that_may_not_be_read_is_named(
    weight_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(WeightsError, match=r"whole\.safetensors could not be read: Permission"):
        read_container(weight_path)


def test_metadata_is_read_without_the_tensors(tmp_path: Path) -> None:
    data = safetensors.torch.save({"a": torch.tensor([float("nan")])}, metadata={"k": "v"})
    assert read_metadata(write(tmp_path / "a.safetensors", data)) == {"k": "v"}


def test_metadata_of_a_damaged_file_is_refused(weight_path: Path) -> None:
    weight_path.write_bytes(weight_path.read_bytes()[:-3])
    with pytest.raises(WeightsError, match="damaged"):
        read_metadata(weight_path)


def test_negative_variances_are_refused() -> None:
    check_numbers("bn1.running_var", torch.tensor([0.0, 1.0]), where="a file")
    check_numbers("bn1.running_mean", torch.tensor([-1.0]), where="a file")
    with pytest.raises(WeightsError, match=r"a file: bn1\.running_var holds negative numbers"):
        check_numbers("bn1.running_var", torch.tensor([1.0, -1e-3]), where="a file")
