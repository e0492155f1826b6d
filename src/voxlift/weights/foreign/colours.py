"""What networks for photographs and videos were fed: colours, each normalised on its own."""

from voxlift.core.preprocessing import Preprocessing

Colour = tuple[float, float, float]
"""One number for red, green and blue, on the 0 to 255 scale."""

VIDEOS = "frames of videos, 16 deep, 112x112 pixels, on the 0-255 scale"


def grey_preprocessing(mean: Colour, std: Colour, *, in_channels: int) -> Preprocessing:
    """Put the normalisation of colours into one mean and std, those of their average."""
    return Preprocessing(
        orientation="stored",
        unit="0-255",
        mean=sum(mean) / 3,
        std=sum(std) / 3,
        in_channels=in_channels,
    )


def describe_colours(mean: Colour, std: Colour, *, of: str = VIDEOS) -> str:
    """Say what the network was fed, colour by colour."""
    of_each = "; ".join(
        f"{name} minus {m:.3f} over {s:.3f}"
        for name, m, s in zip(("red", "green", "blue"), mean, std, strict=True)
    )
    return f"{of}: {of_each}"
