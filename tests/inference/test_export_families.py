"""Every family of backbones is exported in both formats, and its rounding told from faults."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from voxlift.core.errors import WeightsError
from voxlift.core.types import Triple
from voxlift.inference import exported_program
from voxlift.inference.export import TOLERANCE, export_model
from voxlift.inference.exported_program import Run, Trace
from voxlift.nets.encoder import Encoder
from voxlift.nets.factory import create_backbone

SIZES: dict[str, tuple[int, Triple]] = {
    "resnet10": (4, (4, 32, 32)),
    "p3d18": (4, (4, 32, 32)),
    "genesis": (4, (16, 16, 16)),
    "gvsl": (8, (16, 16, 32)),
    "resenc": (4, (64, 32, 32)),
    "segresnet": (8, (16, 16, 16)),
    "swin": (12, (32, 32, 64)),
}
"""Width and size of the input."""


def encoder(name: str) -> Encoder:
    torch.manual_seed(0)
    return create_backbone(name, width=SIZES[name][0]).eval()


# MONAI's transformer takes a minute to trace.
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n == "swin" else ()) for n in SIZES]
)
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_every_family_can_be_exported(name: str, suffix: str, tmp_path: Path) -> None:
    network = encoder(name)
    size = SIZES[name][1]
    report = export_model(network, tmp_path / f"a{suffix}", size_voxels=size)
    assert list(report.outputs) == [f"map{i + 1}" for i in range(len(network.out_channels))]
    assert [shape[1] for shape in report.outputs.values()] == list(network.out_channels)
    assert report.largest_difference <= TOLERANCE or report.notes


class Rough(nn.Module):
    """Loses digits of some channels, as a norm of two voxels that are nearly alike does.

    Args:
        share: Of the channels.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, maps: Tensor) -> Tensor:
        """Add a large number, and take it away."""
        count = round(self.share * maps.shape[1])
        return torch.cat([(maps[:, :count] + 3e4) - 3e4, maps[:, count:]], 1)


def rough_encoder(share: float) -> Encoder:
    network = encoder("resnet10")
    network.layer4 = nn.Sequential(network.layer4, Rough(share))  # type: ignore[arg-type]
    return network


def write_precise(
    monkeypatch: pytest.MonkeyPatch, *, factor: float = 1.0, after: int | None = None
) -> None:
    """Let the program be the network in float64, times a factor in the channels after a number."""

    def write(trace: Trace, path: Path) -> Run:
        path.write_bytes(b"program")
        network = copy.deepcopy(trace.source.network).double()

        def run(volumes: Tensor) -> dict[str, Tensor]:
            outputs: dict[str, Tensor] = network(volumes.double())
            outputs["map5"][:, after:] *= factor
            return {name: output.float() for name, output in outputs.items()}

        return run

    monkeypatch.setitem(exported_program.WRITERS, "torch.export", write)


def test_rounding_of_the_network_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_precise(monkeypatch)
    report = export_model(rough_encoder(0.4), tmp_path / "a.pt2", size_voxels=(4, 32, 32))
    assert TOLERANCE < report.largest_difference < 1e-2
    (note,) = report.notes
    assert "map5 is off" in note
    assert "in the network itself" in note
    assert "note: map5" in report.summary()


@pytest.mark.parametrize(("after", "factor"), [(0, 1.1), (16, 1 + 4e-4)])
def test_other_numbers_are_found_beside_rounding(
    after: int, factor: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In rough channels only what is larger than rounding is seen, in the others all.
    write_precise(monkeypatch, factor=factor, after=after)
    with pytest.raises(WeightsError, match="other numbers"):
        export_model(rough_encoder(0.4), tmp_path / "a.pt2", size_voxels=(4, 32, 32))
    assert not list(tmp_path.iterdir())


def test_where_rounding_leaves_too_little_to_compare_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_precise(monkeypatch)
    with pytest.raises(WeightsError, match=r"cannot be checked.*larger size"):
        export_model(rough_encoder(1), tmp_path / "a.pt2", size_voxels=(4, 32, 32))
    assert not list(tmp_path.iterdir())
