"""Segmenting into a folder that holds something already: replaced, resumed or refused."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from voxlift.core.errors import ConfigError, DataError
from voxlift.core.label_scheme import LabelScheme
from voxlift.data.volume import Volume
from voxlift.data.volumes import read_volume, write_volume
from voxlift.inference import segmentation_files
from voxlift.inference.saved_model import SavedModel
from voxlift.inference.segmentation import Segmentation, segment
from voxlift.inference.segmentation_files import segment_files

MakeSegmenter = Callable[..., SavedModel]
Intensities = Callable[..., npt.NDArray[np.float32]]
WriteScan = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("_quick_pictures")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_nothing_is_replaced_unless_it_is_wanted(
    scans: Path, tmp_path: Path, make_segmenter: MakeSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    segment_files(make_segmenter(), [scans / "a.nii.gz"], out=out)
    before = contents(out)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(segmentation_files, "segment", never)
        with pytest.raises(DataError, match=r"volumes\.csv, .*a\.seg.*--resume.*--overwrite"):
            segment_files(make_segmenter(), [scans], out=out)
        (out / "volumes.csv").unlink()
        with pytest.raises(DataError, match=r"there already.*a\.seg\.nii\.gz"):
            segment_files(make_segmenter(), [scans], out=out)
        with pytest.raises(ConfigError, match=r"no folder .*nowhere.*--scratch"):
            segment_files(
                make_segmenter(), [scans], out=out, resume=True, scratch=tmp_path / "nowhere"
            )
        with pytest.raises(ConfigError, match="exclude each other"):
            segment_files(make_segmenter(), [scans], out=out, resume=True, overwrite=True)
    (out / "volumes.csv").write_bytes(before["volumes.csv"])
    assert contents(out) == before
    write_volume(scans / "a.nii.gz", Volume(np.ones((5, 6, 7))), overwrite=True)
    segment_files(make_segmenter(), [scans / "a.nii.gz"], out=out, overwrite=True)
    assert read_volume(out / "a.seg.nii.gz").array.all()


def test_overwriting_keeps_the_rows_of_other_inputs(
    scans: Path, tmp_path: Path, make_segmenter: MakeSegmenter
) -> None:
    out = tmp_path / "out"
    segment_files(make_segmenter(), [scans], out=out)
    before = (out / "volumes.csv").read_text()
    segment_files(make_segmenter(), [scans / "b.nrrd"], out=out, overwrite=True)
    assert (out / "volumes.csv").read_text() == before


def test_resuming_passes_over_what_is_finished(
    scans: Path,
    tmp_path: Path,
    make_segmenter: MakeSegmenter,
    monkeypatch: pytest.MonkeyPatch,
    intensities: Intensities,
    write_scan: WriteScan,
) -> None:
    out = tmp_path / "out"
    segment_files(make_segmenter(), [scans], out=out)
    before = contents(out)
    # One case lacks a file, another one is new.
    (out / "b.png").unlink()
    write_scan(scans / "c.nii.gz", intensities(3))
    segmented: list[str] = []
    real = segment

    def spy(*arguments: Any, **settings: Any) -> Segmentation:
        segmented.append(Path(settings["name"]).name)
        return real(*arguments, **settings)

    monkeypatch.setattr(segmentation_files, "segment", spy)
    result = segment_files(make_segmenter(), [scans], out=out, resume=True)
    assert segmented == ["b.nrrd", "c.nii.gz"]
    assert [file.resumed for file in result.files] == [True, False, False]
    assert [file.mask.name for file in result.files] == [
        "a.seg.nii.gz",
        "b.seg.nii.gz",
        "c.seg.nii.gz",
    ]
    after = contents(out)
    assert {name: after[name] for name in before if name != "volumes.csv"} == {
        name: before[name] for name in before if name != "volumes.csv"
    }
    lines = after["volumes.csv"].decode().splitlines()
    assert lines[:3] == before["volumes.csv"].decode().splitlines()
    assert len(lines) == 4
    # All done: nothing is computed, and nothing changes.
    segment_files(make_segmenter(), [scans], out=out, resume=True)
    assert len(segmented) == 2
    assert contents(out) == after


def test_an_interrupted_run_goes_on_where_it_stopped(
    scans: Path, tmp_path: Path, make_segmenter: MakeSegmenter
) -> None:
    out, fresh = tmp_path / "out", tmp_path / "fresh"

    def stop(_: Path, number: int, __: int) -> None:
        if number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment_files(make_segmenter(), [scans], out=out, on_case=stop)
    assert sorted(contents(out)) == ["a.png", "a.seg.nii.gz", "volumes.csv"]
    segment_files(make_segmenter(), [scans], out=out, resume=True)
    segment_files(make_segmenter(), [scans], out=fresh)
    assert contents(out) == contents(fresh)


def test_resuming_with_another_model_is_refused(
    scans: Path, tmp_path: Path, make_segmenter: MakeSegmenter
) -> None:
    out = tmp_path / "out"
    segment_files(make_segmenter(), [scans], out=out)
    other = make_segmenter(LabelScheme(names=("background", "spleen"), values=(0, 1)))
    with pytest.raises(DataError, match=r"another model.*liver, tumour.*spleen.*--out"):
        segment_files(other, [scans], out=out, resume=True)


def test_the_mask_of_another_input_is_not_replaced(
    scans: Path,
    tmp_path: Path,
    make_segmenter: MakeSegmenter,
    intensities: Intensities,
    write_scan: WriteScan,
) -> None:
    out = tmp_path / "out"
    segment_files(make_segmenter(), [scans / "a.nii.gz"], out=out)
    write_scan(tmp_path / "others" / "a.nii.gz", intensities())
    for resume in (False, True):
        with pytest.raises(DataError, match=r"mask of .*scans.*replaced by.*others"):
            segment_files(
                make_segmenter(),
                [tmp_path / "others"],
                out=out,
                resume=resume,
                overwrite=not resume,
            )


@pytest.mark.parametrize("victim", ["a.seg.nii.gz", "a.png", "volumes.csv"])
def test_a_full_disk_ends_the_run_and_leaves_nothing_half_written(
    victim: str,
    scans: Path,
    tmp_path: Path,
    make_segmenter: MakeSegmenter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name == victim:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(DataError, match=rf"{victim} could not be written: No space left"):
            segment_files(make_segmenter(), [scans], out=out)
    assert victim not in contents(out)
    assert not [name for name in contents(out) if name.startswith(".")]
    # With space again, the run goes on and ends as if nothing had been.
    segment_files(make_segmenter(), [scans], out=out, resume=True)
    segment_files(make_segmenter(), [scans], out=tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh")
