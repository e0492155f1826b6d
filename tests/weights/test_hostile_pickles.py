"""Pickles put together by hand, as only a damaged or hostile file would hold them."""

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from voxlift.core.errors import WeightsError
from voxlift.weights.container import read_container

GLOBAL, MARK, REDUCE, BUILD, STOP = (
    pickle.GLOBAL,
    pickle.MARK,
    pickle.REDUCE,
    pickle.BUILD,
    pickle.STOP,
)


def ask(module: str, name: str) -> bytes:
    """Ask for a name."""
    return GLOBAL + f"{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    """Write a text."""
    data = value.encode()
    return pickle.BINUNICODE + len(data).to_bytes(4, "little") + data


def number(value: int) -> bytes:
    """Write a number of any size."""
    data = value.to_bytes(16, "little", signed=True)
    return pickle.LONG1 + bytes([len(data)]) + data


def many(*items: bytes) -> bytes:
    """Write a tuple."""
    return MARK + b"".join(items) + pickle.TUPLE


def call(module: str, name: str, *arguments: bytes) -> bytes:
    """Call a function."""
    return ask(module, name) + many(*arguments) + REDUCE


def storage(key: str, num_items: int, *, kind: str = "FloatStorage") -> bytes:
    """Refer to a block of numbers."""
    described = many(text("storage"), ask("torch", kind), text(key), text("cpu"), number(num_items))
    return described + pickle.BINPERSID


def tensor(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    start: int = 0,
    block: bytes | None = None,
) -> bytes:
    """Lay a tensor over a block of numbers, by default four of them."""
    return call(
        "torch._utils",
        "_rebuild_tensor_v2",
        block or storage("0", 4),
        number(start),
        many(*(number(size) for size in shape)),
        many(*(number(step) for step in strides)),
        pickle.NEWFALSE,
        call("collections", "OrderedDict"),
    )


def entries(**values: bytes) -> bytes:
    """Write a whole pickle of one dictionary."""
    pairs = b"".join(text(name) + value for name, value in values.items())
    return b"\x80\x02" + pickle.EMPTY_DICT + MARK + pairs + pickle.SETITEMS + STOP


def write_zip(
    path: Path, content: bytes, blocks: Mapping[str, bytes] | None = None, *, packed: bool = False
) -> Path:
    """Write an archive as torch.save does, around any pickle."""
    how = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", b"3\n")
        for key, data in ({"0": b"\0" * 16} if blocks is None else blocks).items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def numpy_scalar(data: bytes) -> bytes:
    """Write the bytes of a NumPy number."""
    kind = call("numpy", "dtype", text("f8"), pickle.NEWFALSE, pickle.NEWTRUE)
    return call("numpy.core.multiarray", "scalar", kind, data)


def test_a_pickle_put_together_by_hand_is_read(tmp_path: Path) -> None:
    content = entries(a=tensor((2, 2), (2, 1)), b=tensor((2,), (1,), start=2))
    container = read_container(write_zip(tmp_path / "a.pth", content))
    assert {name: tuple(tensor.shape) for name, tensor in container.tensors.items()} == {
        "a": (2, 2),
        "b": (2,),
    }


@pytest.mark.parametrize(
    ("shape", "strides", "start"),
    [
        ((5,), (1,), 0),
        ((2, 2), (3, 1), 0),
        ((1,), (1,), 4),
        ((2**40,), (1,), 0),
        ((2**20, 2**20, 2**20), (1, 1, 1), 0),
        ((2**62,), (1,), 0),
        ((-1,), (1,), 0),
        ((2,), (-1,), 1),
        ((1,), (1,), -1),
        ((2, 2), (1,), 0),
    ],
)
def test_a_tensor_outside_its_numbers_is_refused(
    tmp_path: Path, shape: tuple[int, ...], strides: tuple[int, ...], start: int
) -> None:
    content = entries(a=tensor(shape, strides, start=start))
    with pytest.raises(WeightsError, match="damaged or cut off"):
        read_container(write_zip(tmp_path / "a.pth", content))


def test_a_tensor_stretched_by_strides_is_refused(tmp_path: Path) -> None:
    content = entries(a=tensor((2**40,), (0,)))
    with pytest.raises(WeightsError, match=r"tensor a is stretched over .*contiguous"):
        read_container(write_zip(tmp_path / "a.pth", content))


@pytest.mark.parametrize("num_items", [3, 5, 2**40, 2**70, -1])
def test_a_block_of_another_size_than_announced_is_refused(tmp_path: Path, num_items: int) -> None:
    content = entries(a=tensor((1,), (1,), block=storage("0", num_items)))
    with pytest.raises(WeightsError, match="damaged or cut off"):
        read_container(write_zip(tmp_path / "a.pth", content))


def test_a_block_that_is_missing_or_described_in_two_ways_is_refused(tmp_path: Path) -> None:
    missing = entries(a=tensor((1,), (1,), block=storage("7", 4)))
    with pytest.raises(WeightsError, match="block 7 should have 16 bytes and has 0"):
        read_container(write_zip(tmp_path / "a.pth", missing))
    twice = entries(a=tensor((4,), (1,)), b=tensor((4,), (1,), block=storage("0", 1000)))
    with pytest.raises(WeightsError, match="block 0 is described in two ways"):
        read_container(write_zip(tmp_path / "b.pth", twice))


def test_a_tensor_that_is_moved_once_it_is_made_is_refused(tmp_path: Path) -> None:
    place = many(storage("0", 4), number(0), many(number(2**30)), many(number(1)))
    content = entries(a=tensor((1,), (1,)) + place + BUILD)
    with pytest.raises(WeightsError, match="changed once it is made"):
        read_container(write_zip(tmp_path / "a.pth", content))


@pytest.mark.parametrize(
    "bomb",
    [
        call("builtins", "bytearray", number(2**45)),
        call("builtins", "bytearray", numpy_scalar(text("\0" * 8))),
        call("torch", "FloatStorage", number(2**45)),
        call("torch.storage", "UntypedStorage", number(2**45)),
        call("torch", "Tensor", number(2**45)),
        call("torch._utils", "_rebuild_meta_tensor_no_storage", number(2**45)),
        call("_codecs", "encode", text("a" * 100), text("idna")),
    ],
)
def test_calls_that_would_fill_the_memory_are_refused(tmp_path: Path, bomb: bytes) -> None:
    content = entries(a=tensor((1,), (1,)), bomb=bomb)
    with pytest.raises(WeightsError):
        read_container(write_zip(tmp_path / "a.pth", content))


def test_tuples_nested_without_end_are_refused_at_once(tmp_path: Path) -> None:
    nested = number(1) + b"".join(
        pickle.BINPUT + b"\x63" + pickle.BINGET + b"\x63" + pickle.TUPLE2 for _ in range(80)
    )
    content = entries(a=tensor((1,), (1,)), b=call("builtins", "set", nested))
    with pytest.raises(WeightsError, match="without end"):
        read_container(write_zip(tmp_path / "a.pth", content))


def test_lists_nested_without_end_are_cut_short(tmp_path: Path) -> None:
    twice = pickle.BINPUT + b"\x63" + pickle.APPEND + pickle.BINGET + b"\x63" + pickle.APPEND
    nested = pickle.EMPTY_LIST * 61 + twice * 60
    itself = pickle.EMPTY_LIST + pickle.BINPUT + b"\x65" + pickle.BINGET + b"\x65" + pickle.APPEND
    state = entries(a=tensor((1,), (1,)))[2:-1]
    content = entries(state_dict=state, nested=nested, itself=itself)
    extras = read_container(write_zip(tmp_path / "a.pth", content)).extras
    assert "left out" in str(extras["nested"])
    assert "left out" in str(extras["itself"])
    assert len(str(extras)) < 2_000_000


def test_attributes_that_hide_methods_change_nothing(tmp_path: Path) -> None:
    hidden = pickle.EMPTY_DICT + b"".join(
        text(name) + ask("collections", "OrderedDict") + pickle.SETITEM
        for name in ("items", "values", "get", "keys", "__iter__", "__len__", "__class__")
    )
    inner = call("collections", "OrderedDict") + hidden + BUILD
    inner += text("a") + tensor((4,), (1,)) + pickle.SETITEM
    parameter = call(
        "torch._utils",
        "_rebuild_parameter_with_state",
        tensor((4,), (1,)),
        pickle.NEWFALSE,
        call("collections", "OrderedDict"),
        pickle.EMPTY_DICT
        + text("detach")
        + ask("collections", "OrderedDict")
        + pickle.SETITEM
        + text("untyped_storage")
        + ask("collections", "OrderedDict")
        + pickle.SETITEM,
    )
    inner += text("b") + parameter + pickle.SETITEM
    container = read_container(write_zip(tmp_path / "a.pth", entries(state_dict=inner)))
    assert {name: type(tensor) for name, tensor in container.tensors.items()} == {
        "a": torch.Tensor,
        "b": torch.Tensor,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        pickle.APPEND,
        MARK + pickle.APPEND,
        pickle.TUPLE2,
        pickle.APPENDS,
        pickle.TUPLE,
        pickle.BINGET + b"\x07",
        pickle.BINPERSID,
        pickle.REDUCE,
        text("a") + many() + REDUCE,
        many(text("thing"), number(0)) + pickle.BINPERSID,
        many() + pickle.BINPERSID,
        ask("torch", "Size") + text("no tuple") + REDUCE,
        text("a") + text("b") + pickle.APPEND,
        pickle.LONG1 + b"\xff",
        pickle.BINUNICODE + b"\xff\xff\xff\x7f",
        b"",
    ],
)
def test_steps_that_lead_nowhere_are_refused(tmp_path: Path, wrong: bytes) -> None:
    content = b"\x80\x02" + wrong + (STOP if wrong else b"")
    with pytest.raises(WeightsError, match=r"damaged or cut off|holds one"):
        read_container(write_zip(tmp_path / "a.pth", content))


def test_names_are_shown_without_the_signs_that_a_screen_obeys(tmp_path: Path) -> None:
    content = entries(a=ask("evil\x1b[2J", "x" * 500))
    with pytest.raises(WeightsError) as caught:
        read_container(write_zip(tmp_path / "a.pth", content))
    assert "\x1b" not in str(caught.value)
    assert "x" * 100 not in str(caught.value)
    assert "evil" in str(caught.value)


def test_numpy_numbers_of_odd_kinds_are_dropped(tmp_path: Path) -> None:
    short = call("_codecs", "encode", text("abc"), text("latin1"))
    state = entries(a=tensor((1,), (1,)))[2:-1]
    content = entries(model=state, b=numpy_scalar(short), c=ask("numpy", "dtype"))
    extras = read_container(write_zip(tmp_path / "a.pth", content)).extras
    assert extras == {"b": None, "c": "(a type)"}


def write_legacy(path: Path, content: bytes, blocks: Mapping[str, list[float]]) -> Path:
    """Write a file as torch.save did before it wrote archives."""
    heads = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    data = b"".join(pickle.dumps(head, protocol=2) for head in heads)
    data += content + pickle.dumps(list(blocks), protocol=2)
    for numbers in blocks.values():
        data += struct.pack(f"<q{len(numbers)}f", len(numbers), *numbers)
    path.write_bytes(data)
    return path


def old_tensor(place: bytes) -> bytes:
    """Lay a tensor of two numbers over a part of a block, as the oldest files do."""
    described = (text("storage"), ask("torch", "FloatStorage"), text("7"), text("cuda:0"))
    block = many(*described, number(4), place) + pickle.BINPERSID
    size = many(number(2))
    return call("torch._utils", "_rebuild_tensor", block, number(0), size, many(number(1)))


def test_parts_of_blocks_in_old_files_are_read(tmp_path: Path) -> None:
    content = entries(
        a=old_tensor(many(text("8"), number(1), number(2))),
        b=old_tensor(pickle.NONE),
    )
    container = read_container(write_legacy(tmp_path / "a.pth", content, {"7": [1, 2, 3, 4]}))
    assert {name: tensor.tolist() for name, tensor in container.tensors.items()} == {
        "a": [2, 3],
        "b": [1, 2],
    }


@pytest.mark.parametrize(
    "place",
    [
        many(text("8"), number(3), number(2)),
        many(text("8"), number(-1), number(2)),
        many(text("7"), number(0), number(2)),
        many(text("8"), number(0), number(1)),
        many(text("8"), number(0)),
        many(number(8), number(0), number(2)),
        text("8"),
    ],
)
def test_parts_of_blocks_that_lie_outside_are_refused(tmp_path: Path, place: bytes) -> None:
    content = entries(a=old_tensor(place))
    with pytest.raises(WeightsError, match="damaged or cut off"):
        read_container(write_legacy(tmp_path / "a.pth", content, {"7": [1, 2, 3, 4]}))


@pytest.mark.parametrize(
    "arguments",
    [
        (storage("0", 4), number(0), number(2), many(number(1))),
        (number(0), number(0), many(number(2)), many(number(1))),
        (storage("0", 4),),
    ],
)
def test_tensors_described_otherwise_are_refused(
    tmp_path: Path, arguments: tuple[bytes, ...]
) -> None:
    content = entries(a=call("torch._utils", "_rebuild_tensor", *arguments))
    with pytest.raises(WeightsError, match="damaged or cut off"):
        read_container(write_zip(tmp_path / "a.pth", content))
    wrapped = call(
        "torch._tensor",
        "_rebuild_from_type_v2",
        ask("torch._utils", "_rebuild_tensor"),
        ask("collections", "Counter"),
        many(*arguments),
        pickle.EMPTY_DICT,
    )
    with pytest.raises(WeightsError):
        read_container(write_zip(tmp_path / "a.pth", entries(a=wrapped)))
