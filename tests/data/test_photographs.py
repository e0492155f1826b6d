import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from voxlift.core.errors import ConfigError, DataError
from voxlift.data import photographs
from voxlift.data.photographs import PHOTOGRAPHS, PhotographSource


def test_ten_classes_take_turns() -> None:
    source = PhotographSource("train", num_crops=25, size=16, seed=0)
    assert len(source) == 25
    assert len(source.class_names) == 10
    assert source.labels.tolist() == [index % 10 for index in range(25)]
    assert source.labels.dtype == np.int64
    assert source.read(3).shape == (16, 16, 3)
    assert source.read(3).dtype == np.uint8
    assert "25 crops (train)" in source.describe()


def test_training_and_validation_share_no_pixel() -> None:
    used: dict[tuple[str, str], npt.NDArray[np.bool_]] = {}
    for split in ("train", "val"):
        source = PhotographSource(split, num_crops=4000, size=8, seed=1)
        for index in range(4000):
            top, left, edge = source.region(index)
            name = source.class_names[source.labels[index]]
            with Image.open(photographs._path(name)) as image:
                width, height = image.size
            columns = used.setdefault((split, name), np.zeros(width, dtype=bool))
            columns[left : left + edge] = True
            assert 0 <= top <= height - edge
            assert 0.1 * width - 1 <= edge <= 0.2 * width + 1
    for name in PHOTOGRAPHS:
        assert not (used["train", name] & used["val", name]).any()
        # Hardly a column is left unused, and validation has a fifth of them.
        assert (used["train", name] | used["val", name]).mean() > 0.97
        assert used["val", name].mean() == pytest.approx(0.2, abs=0.01)


def test_crop_is_the_region_of_the_photograph() -> None:
    source = PhotographSource("val", num_crops=10, size=32, seed=0)
    top, left, edge = source.region(3)
    with Image.open(photographs._path("coffee")) as image:
        expected = image.convert("RGB").crop((left, top, left + edge, top + edge))
    expected = expected.resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(source.read(3), np.asarray(expected))


def test_seed_and_split_choose_the_crops() -> None:
    regions = {}
    for split in ("train", "val"):
        for seed in (0, 1):
            source = PhotographSource(split, num_crops=50, size=8, seed=seed)
            regions[split, seed] = [source.region(index) for index in range(50)]
            longer = PhotographSource(split, num_crops=60, size=8, seed=seed)
            assert [longer.region(index) for index in range(50)] == regions[split, seed]
    assert regions["train", 0] != regions["train", 1]
    assert regions["val", 0] != regions["val", 1]


def test_bad_arguments() -> None:
    with pytest.raises(ConfigError, match="num_crops is 0"):
        PhotographSource("train", num_crops=0)
    with pytest.raises(ConfigError, match="split is 'test'"):
        PhotographSource("test")  # type: ignore[arg-type]


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "find_spec", lambda _: None)
    with pytest.raises(DataError, match=r"package skimage.*Install"):
        PhotographSource("train")
