from pathlib import Path

import pytest
from torchvision.models import ResNet50_Weights
from torchvision.models.video import MC3_18_Weights, R3D_18_Weights

from voxlift.core.errors import WeightsError
from voxlift.weights import remote
from voxlift.weights.remote import fetch, is_remote


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would have been fetched; nothing is."""
    addresses: list[str] = []

    def fetch_url(address: str) -> Path:
        addresses.append(address)
        return Path("web.pth")

    def fetch_from_hub(address: str) -> tuple[Path, tuple[str, ...]]:
        addresses.append(address)
        return Path("hub.pth"), ("at a commit",)

    monkeypatch.setattr(remote, "fetch_url", fetch_url)
    monkeypatch.setattr(remote, "fetch_from_hub", fetch_from_hub)
    return addresses


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("hf://a/b", True),
        ("HF://a/b", True),
        ("https://a.org/b.pth", True),
        ("HTTP://a.org/b.pth", True),
        ("timm/resnet18", True),
        ("torchvision/resnet18", True),
        ("timm/resnet18.pth", False),
        ("torchvision/mine.safetensors", False),
        ("s3://a/b", False),
        ("hf:a/b", False),
        ("tiny", False),
        ("/data/timm/resnet18", False),
    ],
)
def test_what_lies_elsewhere_is_known_by_its_name(text: str, is_one: bool) -> None:
    assert is_remote(text) is is_one


def test_each_goes_to_its_own_place(asked: list[str]) -> None:
    assert fetch("hf://a/b@v1") == (Path("hub.pth"), ("at a commit",))
    assert fetch("HF://a/b") == (Path("hub.pth"), ("at a commit",))
    assert fetch("https://a.org/b.pth") == (Path("web.pth"), ())
    assert asked == ["hf://a/b@v1", "hf://a/b", "https://a.org/b.pth"]


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("r3d_18", R3D_18_Weights.DEFAULT.url),
        ("mc3_18", MC3_18_Weights.DEFAULT.url),
    ],
)
def test_video_networks_of_torchvision_are_3d_already(
    asked: list[str], name: str, url: str
) -> None:
    path, notes = fetch(f"torchvision/{name}")
    assert path == Path("web.pth")
    assert notes == (f"{name.upper()}_Weights.KINETICS400_V1 of torchvision",)
    assert asked == [url]


def test_weights_of_torchvision_can_be_chosen(asked: list[str]) -> None:
    _, notes = fetch("torchvision/resnet50", declared="i3d")
    assert notes == ("ResNet50_Weights.IMAGENET1K_V2 of torchvision",)
    fetch("torchvision/resnet50@IMAGENET1K_V1", declared="i3d")
    assert asked == [ResNet50_Weights.DEFAULT.url, ResNet50_Weights.IMAGENET1K_V1.url]
    with pytest.raises(WeightsError, match=r"no weights 'V9' for resnet50; .*IMAGENET1K_V1"):
        fetch("torchvision/resnet50@V9", declared="i3d")


def test_timm_names_go_to_the_hub(asked: list[str]) -> None:
    fetch("timm/resnet18", declared="i3d")
    fetch("timm/resnet18.tv_in1k", declared="acs")
    fetch("timm/resnet18.a1_in1k@main", declared="acs")
    assert asked == [
        "hf://timm/resnet18.a1_in1k",
        "hf://timm/resnet18.tv_in1k",
        "hf://timm/resnet18.a1_in1k@main",
    ]


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_2d_network_has_to_be_declared(asked: list[str], library: str) -> None:
    with pytest.raises(WeightsError, match=rf"is a 2D network.* i3d:{library}/resnet18 .*acs:"):
        fetch(f"{library}/resnet18")
    with pytest.raises(WeightsError, match=rf"{library} has no model 'resnet19'"):
        fetch(f"{library}/resnet19", declared="i3d")
    assert asked == []
