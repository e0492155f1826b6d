import logging
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from voxlift.bench import loading_case
from voxlift.bench.loading_case import LoadingCase
from voxlift.bench.setting import Setting
from voxlift.bench.synthetic_images import write_synthetic_jpegs
from voxlift.bench.timing import TimingBudget

SETTING = Setting("cpu", bf16=False, compiler=False)


def tiny(crop: Literal["random-resized", "pad"]) -> LoadingCase:
    return LoadingCase(
        "loading-tiny",
        num_images=8,
        stored_size=(32, 32) if crop == "pad" else (48, 64),
        size=32,
        batch_size=4,
        crop=crop,
        cache_gb=0.1 if crop == "pad" else 0.0,
        budget=TimingBudget(num_warmup=1, num_rounds=1, min_rounds=1, turn_seconds=0.0),
    )


@pytest.mark.parametrize("crop", ["random-resized", "pad"])
def test_both_sides_load_with_equally_many_workers(
    monkeypatch: pytest.MonkeyPatch, crop: Literal["random-resized", "pad"]
) -> None:
    monkeypatch.setattr(loading_case, "num_cores", lambda: 1)
    rows = list(tiny(crop).rows(SETTING))
    assert [row.baseline_name for row in rows] == [
        "torchvision-imagefolder-0-workers",
        "torchvision-imagefolder-1-workers",
    ]
    assert {row.shape for row in rows} == {"4x3x32x32"}
    # A scaled crop is taken from a JPEG decoded at a reduced scale: nearly the same, not the same.
    assert {row.same_function for row in rows} == {crop == "pad"}
    assert all(row.ours > 0 and row.baseline > 0 for row in rows)


def test_without_torchvision_the_rows_are_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # None in sys.modules makes the import fail as if the library were absent.
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with caplog.at_level(logging.WARNING, logger="voxlift.bench"):
        assert list(tiny("pad").rows(SETTING)) == []
    assert "No rows for loading-tiny" in caplog.text


def test_synthetic_photographs_are_like_real_ones_on_disk(tmp_path: Path) -> None:
    write_synthetic_jpegs(tmp_path / "a", num_images=3, size=(375, 500), num_classes=2)
    write_synthetic_jpegs(tmp_path / "b", num_images=3, size=(375, 500), num_classes=2)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.jpg"))
    assert [str(file) for file in files] == [
        "class0/00000.jpg",
        "class0/00002.jpg",
        "class1/00001.jpg",
    ]
    for file in files:
        content = (tmp_path / "a" / file).read_bytes()
        assert content == (tmp_path / "b" / file).read_bytes()
        # ImageNet's photographs take about 110 kB at this size.
        assert 60_000 < len(content) < 160_000
        with Image.open(tmp_path / "a" / file) as image:
            assert image.size == (500, 375)
            pixels = np.asarray(image)
        assert pixels.std() > 30
    first, second = (np.asarray(Image.open(tmp_path / "a" / file)) for file in files[:2])
    assert (first != second).any()
