"""Training in bf16 on thin volumes with wide planes, which once ended the process."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("bf16_training.py")


def test_gradients_in_bf16_are_those_of_fp32_in_all_tasks() -> None:
    ended = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, timeout=400, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    assert {task for task, *_ in found} == {"pretrain", "classify", "segment", "detect"}
    wrong = [case for case in found if not case[-1] < 0.01]
    assert not wrong, wrong
