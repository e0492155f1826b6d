"""Draw the pictures of the README and of the documentation.

Command: `uv run python scripts/draw_figures.py`. They go to `docs/images`.
"""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage.data

from voxlift.core.geometry import Geometry, named_geometry
from voxlift.core.types import Triple
from voxlift.data.phantoms import CLASS_NAMES, NoduleParameters, nodule_phantom
from voxlift.figures.geometry import plot_geometries
from voxlift.figures.lift import plot_lift, plot_lifted_with_kernels
from voxlift.figures.segmentation import plot_overview
from voxlift.figures.slices import plot_planes
from voxlift.weights.bundled import bundled_path
from voxlift.weights.file import read_weight_file

IMAGES = Path(__file__).parents[1] / "docs" / "images"
LUNG_WINDOW_HU = (-1000.0, 200.0)
ABDOMEN_WINDOW_HU = (-160.0, 240.0)
LESION_SCAN_HU = (-90, 110, 40)

logger = logging.getLogger("draw_figures")


def draw_lift(path: Path) -> Path:
    """Draw one photograph and the thin volume that it becomes."""
    photograph = skimage.data.chelsea()
    return plot_lift(photograph[:, 75:375], path)


def draw_geometries(path: Path) -> Path:
    """Draw the sizes of a network's feature maps under the named geometries."""
    sizes: dict[str, Triple] = {
        "pretrain": (3, 224, 224),
        "thumbnail": (3, 32, 32),
        "volume": (64, 128, 128),
        "unet": (64, 128, 128),
        "small": (32, 32, 32),
        "nodule": (16, 32, 32),
    }
    rows = {name: (named_geometry(name), size) for name, size in sizes.items()}
    return plot_geometries(rows, path)


def draw_axis_orders(path: Path) -> Path:
    """Draw one lifted photograph laid along each axis, with its geometry turned alike."""
    thumbnail = named_geometry("thumbnail")
    size: Triple = (3, 32, 32)
    rows: dict[str, tuple[Geometry, Triple]] = {}
    for order, thin in (((0, 1, 2), "depth"), ((1, 0, 2), "height"), ((1, 2, 0), "width")):
        turned: Triple = (size[order[0]], size[order[1]], size[order[2]])
        rows[f"thin along {thin}: order {order}"] = (thumbnail.transposed(order), turned)
    return plot_geometries(rows, path)


def draw_kernels(path: Path) -> Path:
    """Draw lifted photographs beside the stem kernels that the bundled `tiny` learned."""
    photographs = [skimage.data.chelsea(), skimage.data.coffee(), skimage.data.rocket()]
    kernels = read_weight_file(bundled_path("tiny")).tensors["backbone.conv1.weight"]
    return plot_lifted_with_kernels(photographs, kernels.float().numpy(), path)


def draw_nodules(path: Path) -> Path:
    """Draw simulated nodules of both classes, with the outlines of their masks."""
    phantoms = [nodule_phantom(label=label, seed=seed) for label in (0, 1) for seed in (0, 1, 2)]
    return plot_planes(
        [phantom.array for phantom in phantoms],
        path,
        titles=[CLASS_NAMES[phantom.label] for phantom in phantoms],
        spacing_mm=NoduleParameters().spacing_mm,
        window_hu=LUNG_WINDOW_HU,
        masks=[phantom.mask.astype(np.uint8) for phantom in phantoms],
    )


def draw_segmentation(path: Path) -> Path:
    """Draw a simulated organ with a lesion as `voxlift predict` draws what it has found."""
    size, spacing_mm = (28, 56, 56), (1.5, 1.0, 1.0)
    generator = np.random.default_rng(0)
    axes = [(np.arange(n) - n / 2) * mm for n, mm in zip(size, spacing_mm, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    mask = np.zeros(size, np.uint8)
    mask[(z / 15) ** 2 + (y / 18) ** 2 + (x / 22) ** 2 < 1] = 1
    mask[(z - 4) ** 2 + (y + 3) ** 2 + (x - 8) ** 2 < 6**2] = 2
    image = np.choose(mask, LESION_SCAN_HU) + generator.normal(0, 20, size)
    return plot_overview(
        image,
        mask,
        path,
        structures={"organ": (1,), "lesion": (2,)},
        spacing_mm=spacing_mm,
        window=ABDOMEN_WINDOW_HU,
        title="scan-00",
    )


FIGURES: dict[str, Callable[[Path], Path]] = {
    "lift.png": draw_lift,
    "kernels.png": draw_kernels,
    "geometries.png": draw_geometries,
    "axis-orders.png": draw_axis_orders,
    "nodules.png": draw_nodules,
    "segmentation.png": draw_segmentation,
}


def draw_figures(folder: Path) -> list[Path]:
    """Draw every picture into a folder."""
    return [draw(folder / name) for name, draw in FIGURES.items()]


def main() -> None:
    """Draw every picture and log where it went."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder to write to")
    for path in draw_figures(parser.parse_args().out):
        logger.info("%s", path)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
