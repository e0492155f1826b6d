import logging
import sys
from pathlib import Path

import pytest
import torch

from voxlift.bench.predict_memory import PredictMemoryCase, save_segmenter
from voxlift.bench.predict_memory_process import main, peak_bytes
from voxlift.bench.report import BenchRow
from voxlift.bench.setting import Setting
from voxlift.bench.simulated_ct import write_simulated_ct
from voxlift.core.errors import VoxliftError
from voxlift.inference.saved_model import load_model

CPU = Setting("cpu", bf16=False, compiler=False)
SMALL = PredictMemoryCase(
    "predict-memory", size_voxels=(24, 40, 40), window_voxels=(16, 32, 32), limit_gb=4.0
)


def fake_process(path: Path, *lines: str) -> str:
    """Make a program that takes any arguments and does as told."""
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return str(path)


@pytest.mark.slow
def test_the_peak_of_a_process_of_its_own_is_compared_with_the_limit() -> None:
    (row,) = SMALL.rows(CPU)
    # Two windows along each axis.
    assert row.shape.startswith("24x40x40 int16, 8 windows of 16x32x32, ")
    # A process that has loaded torch, and no more than a small scan.
    assert 0.1 < row.ours < 2.5
    assert row.ratio == pytest.approx(4.0 / row.ours, rel=1e-3)


def test_what_the_process_tells_becomes_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = fake_process(
        tmp_path / "program",
        'echo "$@" > "$(dirname "$0")/arguments"',
        'echo \'{"done": 1, "total": 3}\'',
        "echo 'a warning' >&2",
        'echo \'{"done": 3, "total": 3}\'',
        'echo \'{"peak_bytes": 2500000000, "seconds": 90.0}\'',
    )
    monkeypatch.setattr(sys, "executable", program)
    with caplog.at_level(logging.INFO, logger="voxlift.bench"):
        (row,) = SMALL.rows(CPU)
    assert row == BenchRow(
        name="predict-memory",
        shape="24x40x40 int16, 3 windows of 16x32x32, 1.5 min, "
        f"torch threads: {torch.get_num_threads()}",
        ours=2.5,
        baseline=4.0,
        unit="GB",
        ratio=1.6,
        baseline_name="limit",
        same_function=True,
    )
    for part in ("33 % of the windows", "100 % of the windows", "2.50 GB at most, 1.5 minutes"):
        assert part in caplog.text
    module, model, scan, _, threads = (tmp_path / "arguments").read_text().split()[1:]
    assert module == "voxlift.bench.predict_memory_process"
    assert (Path(model).name, Path(scan).name) == ("model.safetensors", "scan.nii.gz")
    assert int(threads) == torch.get_num_threads()


def test_a_process_that_fails_is_told_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = fake_process(tmp_path / "program", "echo 'it did not work' >&2", "exit 3")
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(VoxliftError, match=r"predict-memory: .*failed: it did not work"):
        list(SMALL.rows(CPU))


def test_the_process_segments_a_scan_and_tells_its_peak(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, scan = tmp_path / "model.safetensors", tmp_path / "scan.nii.gz"
    save_segmenter(model, window_voxels=(16, 32, 32))
    write_simulated_ct(scan, size_voxels=(16, 32, 40))
    threads = torch.get_num_threads()
    before = peak_bytes()
    main(str(model), str(scan), str(tmp_path / "out"), str(threads))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ['{"done": 1, "total": 2}', '{"done": 2, "total": 2}']
    assert '"peak_bytes"' in lines[2]
    assert '"seconds"' in lines[2]
    assert (tmp_path / "out" / "scan.seg.nii.gz").is_file()
    assert 0 < before <= peak_bytes()
    scan.write_bytes(scan.read_bytes()[:-100])
    with pytest.raises(VoxliftError, match=r"scan\.nii\.gz"):
        main(str(model), str(scan), str(tmp_path / "again"), str(threads))


def test_the_network_is_a_unet_on_the_bundled_encoder(tmp_path: Path) -> None:
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    state = torch.get_rng_state()
    for path in paths:
        save_segmenter(path, window_voxels=(16, 32, 32))
    assert torch.equal(torch.get_rng_state(), state)
    first, second = (load_model(path) for path in paths)
    assert first.segmentation.window_voxels == (16, 32, 32)
    assert first.head.task == "segment"
    pairs = zip(first.networks[0].parameters(), second.networks[0].parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
