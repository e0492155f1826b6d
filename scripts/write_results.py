"""Write the measured results and the bundled starts into the README and the documentation.

Command: `uv run python scripts/write_results.py`. It reads the weight files and
`benchmarks/results/*.json`, which are what `voxlift bench --json FILE`, the quickstart
(`quickstart.json`) and the scripts named `measure_*` write. `draw_results.py` draws the figures.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from fuzz_report import describe_robustness
from voxlift.core.files import write_text
from voxlift.core.geometry import geometry_name
from voxlift.weights.bundled import WeightEntry, list_weights
from voxlift.weights.catalogue import FormatEntry, list_formats

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
SEGMENTATION_PAGE = ROOT / "docs" / "results" / "segmentation.md"
DETECTION_PAGE = ROOT / "docs" / "results" / "detection.md"
ROBUSTNESS_PAGE = ROOT / "docs" / "results" / "robustness.md"
SEARCH_PAGE = ROOT / "docs" / "how-to" / "detection.md"
FORMATS_PAGE = ROOT / "docs" / "how-to" / "weights.md"
AXIS_PAGE = ROOT / "docs" / "concepts" / "axis-shuffle.md"
RESULTS = ROOT / "benchmarks" / "results"
NOT_MEASURED = "(Not measured yet.)"

logger = logging.getLogger("write_results")


def fill(text: str, section: str, content: str) -> str:
    """Put content between the marks of a section, which stay.

    Raises:
        ValueError: If the marks are not there, once each and in order.
    """
    begin, end = f"<!-- {section}: begin.", f"<!-- {section}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"The page needs '{begin} ... -->' and then '{end}', once each.")
    start = text.index("-->", text.index(begin)) + len("-->")
    return f"{text[:start]}\n{content}\n{text[text.index(end) :]}"


def describe_results(files: Sequence[Path]) -> str:
    """Lay result files out as Markdown: quickstarts first, then benchmarks, no other files."""
    loaded = [(path, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(files)]
    parts = [_quickstart(p, each) for p, each in loaded if "starts" in each]
    parts += [_bench(p, each) for p, each in loaded if isinstance(each, list)]
    return "\n\n".join(parts) or NOT_MEASURED


def describe_weights(entries: Sequence[WeightEntry]) -> str:
    """Lay the bundled starts out as a Markdown table."""
    rows = []
    for entry in entries:
        shape = entry.architecture
        metrics = entry.provenance.get("metrics")
        top1 = metrics.get("test/top1") if isinstance(metrics, dict) else None
        rows.append(
            (
                f"[`{entry.name}`](src/voxlift/weights/bundled/{entry.name}.md)",
                f"{shape.name}, width {shape.width}, stem {shape.stem_kernel}, {shape.norm} norm, "
                f"geometry `{geometry_name(entry.geometry)}`",
                f"{entry.provenance['data']}, recipe `{entry.provenance['recipe']}`",
                f"{top1:.2%}" if isinstance(top1, float) else "not measured",
                f"{entry.num_bytes / 1e6:.1f} MB",
                str(entry.licence),
            )
        )
    return _table(("name", "network", "learned from", "test top-1", "size", "licence"), rows)


def describe_formats(entries: Sequence[FormatEntry]) -> str:
    """Lay the formats that are read out as a Markdown table."""
    rows = [(f"`{each.name}`", each.summary, each.licence or "not stated") for each in entries]
    return _table(("format", "files", "licence"), rows)


def _quickstart(path: Path, content: dict[str, Any]) -> str:
    num_seeds = len(content["starts"][0]["auroc_by_seed"])
    machine = content["environment"]
    rows = []
    for each in content["starts"]:
        gain, steps = each["gain_over_scratch"], each["steps_to_scratch_final"]
        rows.append(
            (
                each["start"],
                _span(each["auroc"], sign=""),
                "" if gain is None else _span(gain, sign="+"),
                "not reached" if steps is None else str(steps),
            )
        )
    return "\n\n".join(
        (
            f"**What a start gains on few volumes** (`voxlift quickstart`). {content['data']}; "
            f"{content['steps']} steps of batch {content['batch_size']}, {num_seeds} seeds. AUROC "
            "on the test cases and its difference to scratch, both with 95 % intervals, and the "
            "steps after which the validation AUROC was what scratch ended with.",
            _table(("start", "AUROC", "against scratch", "steps to scratch's end"), rows),
            f"{machine['processor']}, {machine['cores']} cores, torch "
            f"{machine['packages']['torch']}; `{_name(path)}`.",
        )
    )


def _bench(path: Path, rows: list[dict[str, Any]]) -> str:
    if rows[0]["unit"] == "GB":
        return _memory(path, rows[0])
    machine = rows[0]["machine"]
    where = [machine["gpu"]] if machine["gpu"] else []
    where += [machine["cpu"], f"{machine['cores']} cores", f"torch {machine['torch']}"]
    table = _table(
        ("what", "shape", "ours", "other", "ratio", "against", "same function"),
        [
            (
                row["name"],
                row["shape"],
                f"{row['ours']:.4g}",
                f"{row['baseline']:.4g}",
                f"{row['ratio']:.2f}",
                row["baseline_name"],
                "yes" if row["same_function"] else "no",
            )
            for row in rows
        ],
    )
    return "\n\n".join(
        (
            f"**Speed** (`voxlift bench`), in {rows[0]['unit']}; a ratio above 1 means that "
            "Voxlift is faster.",
            table,
            f"{', '.join(where)}; {machine['date']}; `{_name(path)}`. `benchmarks/README.md` says "
            "what is timed.",
        )
    )


def _memory(path: Path, row: dict[str, Any]) -> str:
    machine = row["machine"]
    return (
        f"**Memory** (`voxlift bench --only {row['name']}`): at most {row['ours']:.2f} GB to "
        f"segment a large scan ({row['shape']}); the limit is {row['baseline']:g} GB. "
        f"{machine['cpu']}, torch {machine['torch']}; {machine['date']}; `{_name(path)}`."
    )


def _name(path: Path) -> str:
    return f"benchmarks/results/{path.name}"


def _span(interval: dict[str, Any], *, sign: str) -> str:
    value, low, high = (interval[key] for key in ("value", "low", "high"))
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def describe_axis_statistics(content: dict[str, Any]) -> str:
    """Lay out what batch-norm statistics of each axis order give, beside shared ones."""
    machine = content["environment"]
    rows = [
        (str(tuple(row["order"])), f"{row['shared']:.1%}", f"{row['kept_for_each']:.1%}")
        for row in content["rows"]
    ]
    return "\n\n".join(
        (
            _table(("axis order", "shared statistics", "statistics of the order"), rows),
            f"{content['metric'].capitalize()}: {content['num_images']} of them, "
            f"{content['calibration_images']} training photographs for the statistics; "
            f"{machine['processor']}, torch {machine['packages']['torch']}; "
            "`benchmarks/results/axis-statistics.json`.",
        )
    )


def describe_segmentation_starts(content: dict[str, Any]) -> str:
    """Lay out the Dice of each start with few labels, for both budgets."""
    machine = content["environment"]
    groups: dict[tuple[int, int, str], list[dict[str, Any]]] = {}
    for run in content["runs"]:
        groups.setdefault((run["steps"], run["labels"], run["start"]), []).append(run)
    rows = []
    for (steps, labels, start), runs in sorted(groups.items(), key=_scratch_first):
        scratch = {run["seed"]: run for run in groups.get((steps, labels, "scratch"), ())}
        half_way = [run["curve"][len(run["curve"]) // 2 - 1][1] for run in runs]
        gains = [run["dice"] - scratch[run["seed"]]["dice"] for run in runs]
        rows.append(
            (
                str(steps),
                str(labels),
                start,
                _mean_span([run["dice"] for run in runs], sign=""),
                "" if start == "scratch" else _mean_span(gains, sign="+"),
                _mean_span(half_way, sign=""),
                f"{mean(run['hd95_mm'] for run in runs):.2f}",
            )
        )
    header = ("steps", "labels", "start", "Dice", "against scratch", "Dice half way", "HD95 (mm)")
    seeds = sorted({run["seed"] for run in content["runs"]})
    return "\n\n".join(
        (
            _table(header, rows),
            _paired(content["runs"]),
            f"{content['data']}: {content['num_judged']} volumes judged, from which nothing was "
            "learnt and by which no weights were chosen. Means over the seeds "
            f"{', '.join(map(str, seeds))}, in brackets "
            "the lowest and the highest; a difference is taken seed by seed. "
            f"`{content['command']}`; {machine['processor']}, torch "
            f"{machine['packages']['torch']}; `benchmarks/results/hippocampus.json`.",
        )
    )


def _paired(runs: Sequence[dict[str, Any]]) -> str:
    """Count in how many runs each start beat scratch of the same steps, labels and seed."""
    pairs: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for run in runs:
        for other in runs:
            alike = all(run[key] == other[key] for key in ("steps", "labels", "seed"))
            if alike and other["start"] == "scratch" and run["start"] != "scratch":
                pairs.setdefault(run["start"], []).append((run, other))
    sentences = [
        f"`{start}` had a higher Dice than scratch in "
        f"{sum(a['dice'] > b['dice'] for a, b in both)} and a smaller HD95 in "
        f"{sum(a['hd95_mm'] < b['hd95_mm'] for a, b in both)} of {len(both)} pairs of runs."
        for start, both in sorted(pairs.items())
    ]
    return " ".join(sentences)


def _scratch_first(item: tuple[tuple[int, float, str], Any]) -> tuple[int, float, bool, str]:
    steps, share, start = item[0]
    return steps, share, start != "scratch", start


def _mean_span(values: Sequence[float], *, sign: str) -> str:
    return f"{mean(values):{sign}.3f} ({min(values):{sign}.3f} to {max(values):{sign}.3f})"


def describe_recipe(content: dict[str, Any]) -> str:
    """Lay out what a recipe of segmentation reached."""
    metrics, machine = content["report"]["metrics"], content["environment"]
    names = {"dice": "Dice", "surface_dice": "surface Dice", "hd95_mm": "HD95 (mm)"}
    names |= {"assd_mm": "mean surface distance (mm)", "volume_error_ml": "volume error (ml)"}
    rows = [
        (name, *(_span(each["metrics"][metric], sign="") for metric in names))
        for name, each in metrics["structures"].items()
    ]
    if len(rows) > 1:
        rows.append(("mean", *(_span(metrics["means"][metric], sign="") for metric in names)))
    return "\n\n".join(
        (
            _table(("structure", *names.values()), rows),
            f"{metrics['num_cases']} volumes of {metrics['num_groups']} patients, from which "
            "nothing was learnt and by which no weights were chosen, with 95 % intervals over "
            f"patients; surfaces agree within {metrics['surface_tolerance_mm']:g} mm. "
            f"{content['steps']} steps of batch "
            f"{content['batch_size']}, start `{content['start']}`, seed {content['seed']}: "
            f"{content['minutes']:g} minutes with reading and judging. `{content['command']}`; "
            f"{machine['processor']}, {_count(machine['cores'], 'thread')}, torch "
            f"{machine['packages']['torch']}; "
            f"`benchmarks/results/recipe-{content['recipe']}.json`.",
        )
    )


def describe_detection_starts(content: dict[str, Any]) -> str:
    """Lay out the sensitivities of each start, for each budget and share of the patients."""
    machine, num = content["environment"], content["num_images"]
    groups: dict[tuple[int, float, str], list[dict[str, Any]]] = {}
    for run in content["runs"]:
        groups.setdefault((run["steps"], run["fraction"], run["start"]), []).append(run)
    rows = []
    for (steps, fraction, start), runs in sorted(groups.items(), key=_scratch_first):
        scratch = {run["seed"]: run for run in groups.get((steps, fraction, "scratch"), ())}
        gains = [run["mean_sensitivity"] - scratch[run["seed"]]["mean_sensitivity"] for run in runs]
        sensitivities = zip(*(run["sensitivity"] for run in runs), strict=True)
        rows.append(
            (
                str(steps),
                f"{fraction:.0%}",
                start,
                str(len(runs)),
                *(f"{mean(values):.3f}" for values in sensitivities),
                _mean_span([run["mean_sensitivity"] for run in runs], sign=""),
                "" if start == "scratch" else _mean_span(gains, sign="+"),
                f"{mean(run['ap50'] for run in runs):.3f}",
            )
        )
    rates = [f"at {rate:g}" for rate in content["runs"][0]["rates"]]
    header = ("steps", "patients", "start", "seeds", *rates, "mean", "against scratch", "AP50")
    photographs = content["pretraining"]["training_images"]
    return "\n\n".join(
        (
            f"**On photographs**: after {content['pretraining']['minutes']:g} minutes the detector "
            f"has an AP50 of {photographs['ap50']:.3f} on the images that it learnt from, and of "
            f"{content['pretraining']['held_out_images']['val/ap50']:.3f} on those held out.",
            "**On lesions**: sensitivity at 0.5, 1, 2 and 4 false positives an image, and their "
            "mean, with the lowest and the highest of the seeds in brackets; a difference is taken "
            "seed by seed.",
            _table(header, rows),
            f"{content['data']}: {num['train']} images to learn from, {num['test']} of other "
            "patients judged, by which nothing was chosen. "
            f"`{content['command']}`; {machine['processor']}, {_count(machine['cores'], 'thread')},"
            f" torch {machine['packages']['torch']}; `benchmarks/results/detection.json`.",
        )
    )


def describe_fast_context(content: dict[str, Any]) -> str:
    """Lay out what fast context gains and changes for each detector."""
    machine = content["environment"]
    rows = []
    for each in content["detectors"]:
        agreed = each["of_exact_boxes_found_fast"]
        rows.append(
            (
                f"{each['backbone']} of width {each['width']}, {each['norm']} norm",
                f"{each['ratio']:.1f} times",
                f"{each['feature_maps_differ_by']:.0%}",
                f"{agreed['share']:.1%}",
                *(
                    ", ".join(f"{value:.2f}" for value in each["sensitivity"][way].values())
                    for way in ("exact", "fast")
                ),
            )
        )
    first = content["detectors"][0]
    rates = ", ".join(first["sensitivity"]["exact"])
    header = ("detector", "faster", "maps differ by", "sure boxes found too", "exact", "fast")
    return "\n\n".join(
        (
            _table(header, rows),
            f"{content['data'].capitalize()}; {first['lesions']} lesions. The last columns are the "
            f"sensitivities at {rates} false positives an image. `{content['command']}`; "
            f"{machine['processor']}, {_count(content['threads'], 'thread')}, torch "
            f"{machine['packages']['torch']}; `benchmarks/results/fast-context.json`.",
        )
    )


def updated_pages() -> dict[Path, str]:
    """Return the text of every page that shows results, with its sections written anew."""
    readme = README.read_text(encoding="utf-8")
    readme = fill(readme, "results", describe_results(list(RESULTS.glob("*.json"))))
    readme = fill(readme, "weights", describe_weights(list_weights()))
    statistics = _load("axis-statistics")
    axis_page = AXIS_PAGE.read_text(encoding="utf-8")
    axis_page = fill(axis_page, "axis statistics", describe_axis_statistics(statistics))
    page = SEGMENTATION_PAGE.read_text(encoding="utf-8")
    page = fill(page, "starts", describe_segmentation_starts(_load("hippocampus")))
    for recipe in ("hippocampus", "lidc-segment"):
        page = fill(page, recipe, describe_recipe(_load(f"recipe-{recipe}")))
    detection = DETECTION_PAGE.read_text(encoding="utf-8")
    detection = fill(detection, "starts", describe_detection_starts(_load("detection")))
    search = SEARCH_PAGE.read_text(encoding="utf-8")
    search = fill(search, "fast context", describe_fast_context(_load("fast-context")))
    formats = FORMATS_PAGE.read_text(encoding="utf-8")
    formats = fill(formats, "formats", describe_formats(list_formats()))
    robustness = ROBUSTNESS_PAGE.read_text(encoding="utf-8")
    robustness = fill(robustness, "robustness", describe_robustness(_load("robustness")))
    return {
        README: readme,
        AXIS_PAGE: axis_page,
        SEGMENTATION_PAGE: page,
        DETECTION_PAGE: detection,
        ROBUSTNESS_PAGE: robustness,
        SEARCH_PAGE: search,
        FORMATS_PAGE: formats,
    }


def _load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def main() -> None:
    """Rewrite the pages."""
    for path, text in updated_pages().items():
        write_text(path, text)
        logger.info("%s", path)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
