"""Measure what `--fast-context` changes in the answer of trained detectors, and what it gains.

Command: `uv run python scripts/measure_fast_context.py MODEL ...`, with detectors of simulated
lesions, `write_deeplesion_like(FOLDER, num_patients=150, seed=0, size=128)`. Those of the result
file were learnt by `voxlift finetune --recipe detect-few --data FOLDER --image-size 128 --keep
last` with

- `--weights scratch --backbone mp3d18 --width 16 --stem 3 --steps 500`;
- `--weights tiny --steps 300`, which is a run of `measure_detection.py`.

Scans of other simulated patients are searched in both ways, every slice in turn as the key slice.
Their slices are as far apart as those of a context, so that both ways have the same key slices; of
a scan with thinner slices the fast way looks at fewer, and gains more. Compared are

- the backbone's feature maps: root mean square of the difference, in shares of the exact maps';
- the boxes in all slices: how many of one way the other finds too;
- sensitivity at false positives an image in the slices through the middle of the lesions.

The result goes to `benchmarks/results/fast-context.json`.
"""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import tyro
from torchvision.ops import box_iou

from voxlift.bench.context_case import key_slice_planes, plane_difference
from voxlift.core.files import write_text
from voxlift.core.randomness import numpy_generator
from voxlift.data.lesion_phantoms import LesionParameters, SimulatedSlices, simulate_slices
from voxlift.data.volume import Volume
from voxlift.inference.context_windows import SliceBoxes, detect_slices
from voxlift.inference.detection import the_detector
from voxlift.inference.saved_model import SavedModel, load_model
from voxlift.metrics.froc import froc
from voxlift.training.run_folder import describe_environment

logger = logging.getLogger("measure_fast_context")

FIELD_MM = 110.0
SURE_SCORE = 0.5
IOU = 0.5


@dataclass
class Command:
    """Measure fast context.

    Args:
        models: Detectors.
        out: Result file.
        scans: How many scans are searched.
        depth: Slices of each.
        size: Their height and width.
        threads: CPU threads.
    """

    models: Annotated[tuple[Path, ...], tyro.conf.Positional]
    out: Path = Path("benchmarks/results/fast-context.json")
    scans: int = 40
    depth: int = 24
    size: int = 128
    threads: int = 1


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan with lesions in its middle slice."""

    volume: Volume
    key: int
    truth: npt.NDArray[np.float64]


def main() -> None:
    """Search all scans by every detector in both ways."""
    command = tyro.cli(Command)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(command.threads)
    rows = []
    for path in command.models:
        model = load_model(path)
        interval_mm = model.detection.slice_interval_mm
        assert interval_mm is not None
        scans = [
            simulate_scan(number, depth=command.depth, size=command.size, interval_mm=interval_mm)
            for number in range(command.scans)
        ]
        rows.append(measure(model, scans))
        logger.info("%s: %s", path, rows[-1])
    write_text(command.out, to_json(rows, command))


def simulate_scan(number: int, *, depth: int, size: int, interval_mm: float) -> Scan:
    """Simulate the scan of a patient whom no detector has seen."""
    key = depth // 2
    pixel_mm = FIELD_MM / size
    simulated = simulate_slices(
        (np.arange(depth, dtype=np.float64) - key) * interval_mm,
        size=(size, size),
        spacing_mm=pixel_mm,
        thickness_mm=interval_mm,
        generator=numpy_generator(0, "fast-context", number),
    )
    volume = Volume(np.rint(simulated.array).astype(np.int16), (interval_mm, pixel_mm, pixel_mm))
    return Scan(volume, key, true_boxes(simulated, size=size, pixel_mm=pixel_mm))


def true_boxes(
    simulated: SimulatedSlices, *, size: int, pixel_mm: float
) -> npt.NDArray[np.float64]:
    """Tell the boxes in the middle slice, with the margin that those of the training have."""
    margin = LesionParameters().box_margin * size
    boxes = []
    for lesion in simulated.lesions:
        y, x = (place / pixel_mm + size / 2 for place in lesion.centre[1:])
        high, wide = (half / pixel_mm + margin for half in lesion.extent(0.0))
        boxes.append((x - wide, y - high, x + wide, y + high))
    return np.array(boxes)


def measure(model: SavedModel, scans: Sequence[Scan]) -> dict[str, Any]:
    """Search scans in both ways, and compare what is found."""
    found: dict[bool, list[list[SliceBoxes]]] = {False: [], True: []}
    seconds = dict.fromkeys(found, 0.0)
    differences = []
    for number, scan in enumerate(scans):
        # Each way comes first in half of the scans.
        for fast in (number % 2 == 0, number % 2 == 1):
            started = time.process_time()
            found[fast].append(detect_slices(model, scan.volume, fast_context=fast))
            seconds[fast] += time.process_time() - started
        planes = [key_slice_planes(model, scan.volume, fast_context=way) for way in (True, False)]
        differences.append(plane_difference(*planes))
    pairs = [
        pair
        for exact, fast in zip(found[False], found[True], strict=True)
        for pair in zip(exact, fast, strict=True)
    ]
    truths = [scan.truth for scan in scans]
    num_slices = sum(len(scan.volume.array) for scan in scans)
    architecture = the_detector(model).backbone.architecture
    return {
        "backbone": architecture.name,
        "width": architecture.width,
        "norm": architecture.norm,
        "num_slices": model.detection.num_slices,
        "scans": len(scans),
        "key_slices": num_slices,
        "lesions": sum(map(len, truths)),
        "key_slices_a_second": {
            "exact": round(num_slices / seconds[False], 2),
            "fast": round(num_slices / seconds[True], 2),
        },
        "ratio": round(seconds[False] / seconds[True], 2),
        "feature_maps_differ_by": round(float(np.mean(differences)), 4),
        "of_exact_boxes_found_fast": agreement(pairs),
        "of_fast_boxes_found_exactly": agreement([pair[::-1] for pair in pairs]),
        "sensitivity": {
            name: sensitivity(found[fast], scans, truths)
            for name, fast in (("exact", False), ("fast", True))
        },
    }


def agreement(pairs: Sequence[tuple[SliceBoxes, SliceBoxes]]) -> dict[str, float | None]:
    """Tell which share of the sure boxes of one way the other has at all, and how sure it is."""
    num_boxes = num_found = 0
    changes: list[float] = []
    for ours, other in pairs:
        sure = ours.scores >= SURE_SCORE
        num_boxes += int(sure.sum())
        if not sure.any() or not len(other):
            continue
        overlaps = box_iou(torch.from_numpy(ours.boxes[sure]), torch.from_numpy(other.boxes))
        # Of the boxes that overlap enough, the one that the other way is most sure of.
        scores = torch.where(overlaps >= IOU, torch.from_numpy(other.scores), -1.0).amax(1).numpy()
        num_found += int((scores >= 0).sum())
        changes += (scores - ours.scores[sure])[scores >= 0].tolist()
    return {
        "boxes": num_boxes,
        "share": round(num_found / num_boxes, 4) if num_boxes else None,
        "mean_change_of_score": round(float(np.mean(changes)), 4) if changes else None,
    }


def sensitivity(
    found: Sequence[Sequence[SliceBoxes]],
    scans: Sequence[Scan],
    truths: Sequence[npt.NDArray[np.float64]],
) -> dict[str, float]:
    """Judge the middle slices, by rates of false positives an image."""
    judged = [boxes[scan.key] for boxes, scan in zip(found, scans, strict=True)]
    result = froc([np.column_stack([b.boxes, b.scores]) for b in judged], truths)
    rates = result.false_positives_per_image.tolist()
    return {
        f"{rate:g}": round(value, 4)
        for rate, value in zip(rates, result.sensitivity.tolist(), strict=True)
    }


def to_json(rows: list[dict[str, Any]], command: Command) -> str:
    """Write the results with all that has to be known of them."""
    content = {
        "kind": "fast-context",
        "data": f"simulated, {command.scans} scans of {command.depth} slices of {command.size} x "
        f"{command.size} pixels, as far apart as the slices of a context",
        "sure_score": SURE_SCORE,
        "iou": IOU,
        "threads": command.threads,
        "command": "uv run python scripts/measure_fast_context.py MODEL ...",
        # Without the command line, which names folders of the machine.
        "environment": {k: v for k, v in describe_environment().items() if k != "command"},
        "detectors": rows,
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


if __name__ == "__main__":
    main()
