"""The process whose memory `predict_memory` measures: it segments one scan and tells its peak.

It writes a JSON object a line to its standard output: how many windows are done of how many, and at
the end the peak of its memory, the seconds that it took, and how many voxels it gave a structure.
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch

from voxlift.core.errors import VoxliftError
from voxlift.prediction import predict

_PROC_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Tell the largest resident memory of this process so far, mapped files included."""
    if _PROC_STATUS.is_file():
        # Unlike ru_maxrss this says nothing of the process that started this one.
        for line in _PROC_STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main(model: str, scan: str, out: str, threads: str) -> None:
    """Segment a scan on the CPU.

    Args:
        model: Weight file of a segmenter.
        scan: The scan.
        out: Folder for the outputs.
        threads: CPU threads.

    Raises:
        VoxliftError: If the scan cannot be segmented.
    """
    torch.set_num_threads(int(threads))
    begin = time.perf_counter()
    result = predict(
        model, [scan], out=out, device="cpu", on_window=lambda n, total: _tell(done=n, total=total)
    )
    seconds = time.perf_counter() - begin
    for reason in result.failures.values():
        raise VoxliftError(reason)
    _tell(peak_bytes=peak_bytes(), seconds=seconds)


def _tell(**facts: float) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
