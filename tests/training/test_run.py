from pathlib import Path

from voxlift.training.run import Run


def test_a_run_without_a_model_is_not_finished(tmp_path: Path) -> None:
    assert not Run(tmp_path).finished
    assert Run(tmp_path).metrics == {}
    assert Run(tmp_path, tmp_path / "model.safetensors", {"val/top1": 1.0}).finished
