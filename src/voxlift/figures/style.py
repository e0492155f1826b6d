"""One look for all figures: light, readable, and clear to colour-blind eyes."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

from voxlift.core.files import write_aside

# Source: Okabe and Ito, Color Universal Design (2008), the strongest contrasts first.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
# From the same source: those that stand out from grey pictures, dark or bright.
OUTLINE_PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442", "#D55E00")
INK = "#222222"
FAINT = "#8a8a8a"
DOTS_PER_INCH = 150

STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.facecolor": "white",
    "figure.titlesize": 12,
    "figure.titleweight": "bold",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.dpi": DOTS_PER_INCH,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "xtick.labelsize": 8,
    "ytick.color": INK,
    "ytick.labelsize": 8,
}


@contextmanager
def drawn_figure(path: str | Path, *, size_inches: tuple[float, float]) -> Iterator[Figure]:
    """Yield an empty figure in the common style and write it to `path` once it has been drawn.

    The size is a starting point: the block may change it with `figure.set_size_inches`.

    Args:
        path: The file to write; its suffix, such as `.png`, chooses the format.
        size_inches: Width and height.

    Raises:
        DataError: If the file cannot be written.
    """
    with mpl.rc_context({**mpl.rcParamsDefault, **STYLE}), warnings.catch_warnings():
        # A letter that the font lacks, as in a file's name, is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=size_inches, layout="constrained")
        yield figure
        with write_aside(path) as aside:
            figure.savefig(aside)


def image_axes(axes: Axes) -> Axes:
    """Strip an axes of what an image does not need: ticks, grid and frame."""
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def size_text(*lengths: int) -> str:
    """Write a size as 3 times 224 times 224, with multiplication signs."""
    return " \N{MULTIPLICATION SIGN} ".join(str(length) for length in lengths)
