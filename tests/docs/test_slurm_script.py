"""The job script of the how-to, run by a shell with a run and a SLURM that are made up."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "pretraining.md"


@pytest.mark.parametrize("stopped", [True, False])
def test_the_job_requeues_itself_only_when_it_was_stopped(tmp_path: Path, stopped: bool) -> None:
    text = PAGE.read_text(encoding="utf-8")
    script = "#!/bin/bash" + text.partition("#!/bin/bash")[2].partition("```")[0]
    assert "--resume" in script
    run = "trap 'sleep 0.2; exit 138' USR1; touch started; while :; do sleep 0.02; done"
    stubs = {
        "voxlift": run if stopped else "sleep 0.1; exit 3",
        "scontrol": 'echo "$@" > requeued',
    }
    for name, body in stubs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    job = subprocess.Popen(["bash", "-c", script], cwd=tmp_path, env=environment)
    if stopped:
        while not (tmp_path / "started").exists():
            assert job.poll() is None
            time.sleep(0.01)
        job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=20) == (138 if stopped else 3)
    assert (tmp_path / "requeued").exists() == stopped
    assert not stopped or (tmp_path / "requeued").read_text() == "requeue 17\n"
