import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from voxlift.core.errors import DataError
from voxlift.data.image_source import open_images
from voxlift.data.torchvision_source import PUBLIC_SETS, TorchvisionSource, cache_folder


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXLIFT_CACHE", str(tmp_path))


class InMemory:
    """Stands for CIFAR10."""

    classes = ("cat", "dog")

    def __init__(self, root: Path, *, train: bool, download: bool) -> None:
        assert root == cache_folder() / "cifar10"
        self.data = np.arange(3 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 4, 4, 3) + 7 * train
        self.targets = [1, 0, 1]
        self.download = download


class ChannelsFirst:
    """Stands for SVHN, which has no class names."""

    def __init__(self, root: Path, *, split: str, download: bool) -> None:
        assert split == "test"
        assert not download
        self.data = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(1, 3, 4, 4)
        self.labels = np.array([2])


@pytest.mark.parametrize("split", ["train", "val"])
def test_set_in_memory(monkeypatch: pytest.MonkeyPatch, split: str) -> None:
    monkeypatch.setattr(datasets, "CIFAR10", InMemory)
    source = open_images("cifar10", split=split, download=True)  # type: ignore[arg-type]
    assert source.labels.tolist() == [1, 0, 1]
    assert source.class_names == ("cat", "dog")
    assert source.read(1, draft_size=2)[0, 0].tolist() == [
        48 + 7 * (split == "train") + channel for channel in range(3)
    ]
    assert source.describe() == f"3 images of 2 classes of cifar10 {split}"


def test_channels_first_and_no_class_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "SVHN", ChannelsFirst)
    source = TorchvisionSource("svhn", split="val", download=False)
    assert source.read(0)[0, 1].tolist() == [1, 17, 33]
    assert source.class_names == ("0", "1", "2")


def test_set_of_files(tmp_path: Path) -> None:
    # A describable-textures folder as torchvision unpacks it, with two images.
    folder = tmp_path / "dtd" / "dtd" / "dtd"
    names = ["banded/a.png", "dotted/b.png"]
    for number, name in enumerate(names):
        (folder / "images" / name).parent.mkdir(parents=True)
        Image.new("RGB", (5, 3), (number, 0, 0)).save(folder / "images" / name)
    (folder / "labels").mkdir()
    (folder / "labels" / "train1.txt").write_text("\n".join(names))
    source = open_images("dtd", split="train")
    assert source.class_names == ("banded", "dotted")
    assert source.labels.tolist() == [0, 1]
    assert source.read(1)[0, 0].tolist() == [1, 0, 0]
    assert len(pickle.loads(pickle.dumps(source))) == 2


@pytest.mark.parametrize("name", sorted(PUBLIC_SETS))
def test_nothing_is_downloaded_unasked(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{name} could not be read .*Add --download.*\./{name}"):
        open_images(name, split="train")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_failed_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(datasets, "CIFAR10", fail)
    with pytest.raises(DataError, match=r"no route to host. Check the connection"):
        open_images("cifar10", split="train", download=True)


def test_cache_folder_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VOXLIFT_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "voxlift"
