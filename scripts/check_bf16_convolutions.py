"""Compare the weight gradients of bf16 convolutions on this CPU with fp32, torch's own and ours.

Each shape runs in a process of its own, for what is wrong there can end it. Run:

    uv run python scripts/check_bf16_convolutions.py
"""

import json
import platform
import subprocess
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from voxlift.core.cpu import cpu_flags, level2_cache_bytes
from voxlift.lifting.conv3d import conv3d

CHANNELS = ((1, 16), (16, 16), (32, 32), (64, 64))
DEPTHS = (3, 8)
PLANES = (32, 64, 96, 112, 128)
BATCH = 2
SEED = 0
TOLERANCE = 0.02
"""Largest relative error that bf16 explains."""


def error(layer: str, in_channels: int, out_channels: int, depth: int, plane: int) -> float:
    """Return the relative error of the weight gradient of a 3^3 convolution."""
    torch.manual_seed(SEED)
    volume = torch.randn(BATCH, in_channels, depth, plane, plane)
    weight = torch.randn(out_channels, in_channels, 3, 3, 3)
    volume = volume.bfloat16().contiguous(memory_format=torch.channels_last_3d)
    gradients = []
    for convolve, dtype in (
        (functional.conv3d if layer == "torch" else conv3d, torch.bfloat16),
        (functional.conv3d, torch.float32),
    ):
        kernel = weight.bfloat16().to(dtype).requires_grad_()
        output = convolve(volume.to(dtype), kernel, padding=(1, 1, 1))
        torch.manual_seed(SEED)
        (gradient,) = torch.autograd.grad(output, kernel, torch.randn(output.shape).to(dtype))
        gradients.append(gradient.float())
    ours, exact = gradients
    return float((ours - exact).norm() / exact.norm())


def outcome(*shape: object) -> str:
    """Measure the error in a child process, and describe how that ended."""
    ended = subprocess.run(
        [sys.executable, str(Path(__file__)), *map(str, shape)],
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode < 0:
        return f"killed by signal {-ended.returncode}"
    if ended.returncode:
        raise RuntimeError(ended.stderr)
    found = json.loads(ended.stdout)
    return f"{found:.4f}" if found < TOLERANCE else f"{found:.4f}, wrong"


def main() -> None:
    """Print the processor and a table of all shapes."""
    console = Console()
    matrix = sorted(flag for flag in cpu_flags() if "bf16" in flag)
    console.print(
        f"{platform.processor() or platform.machine()}, {', '.join(matrix) or 'no bf16'}, "
        f"level-2 cache {level2_cache_bytes() // 1024} KB, torch {torch.__version__}"
    )
    table = Table("channels", "depth", "plane", "torch's conv3d", "Voxlift's conv3d")
    for channels in CHANNELS:
        for depth in DEPTHS:
            for plane in PLANES:
                ended = [outcome(layer, *channels, depth, plane) for layer in ("torch", "voxlift")]
                names = f"{channels[0]} -> {channels[1]}"
                table.add_row(names, str(depth), str(plane), *ended)
    console.print(table)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(error(sys.argv[1], *map(int, sys.argv[2:]))))
    else:
        main()
