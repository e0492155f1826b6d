import hashlib
from pathlib import Path

import pytest
import safetensors.torch
import torch

from voxlift.core.errors import WeightsError
from voxlift.weights.container import read_container
from voxlift.weights.digest import published_hash


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("res3d18_imagenet_BN_73.07-5ff2ecb7.pth", "5ff2ecb7"),
        ("r3d_18-b3b3357e.pth", "b3b3357e"),
        ("mp3d63-d720bda1ff.pth.tar", "d720bda1ff"),
        (f"a-{'0f' * 32}.safetensors", "0f" * 32),
        (f"net-{'0f' * 20}.pth", None),
        ("net-5ff2ecb71.pth", None),
        ("net-5ff2ecb71a2.pth", None),
        (f"net-{'0f' * 16}.pth", None),
        (f"net-{'0f' * 33}.pth", None),
        ("net-20240131.pth", None),
        ("net-1706659200.pth", None),
        ("net-5ff2ecb.pth", None),
        ("net-5FF2ECB7.pth", None),
        ("net_5ff2ecb7.pth", None),
        ("net-5ff2ecb7-more.pth", None),
        ("net-5ff2ecb7", None),
        ("run-123e4567-e89b-12d3-a456-426614174abc.pth", None),
        ("net-5ff2ecb7.1.pth", None),
    ],
)
def test_the_hash_in_a_name_is_found(name: str, found: str | None) -> None:
    assert published_hash(name) == found


@pytest.mark.parametrize("pickled", [False, True])
def test_a_file_is_held_to_the_hash_in_its_name(tmp_path: Path, *, pickled: bool) -> None:
    path = tmp_path / "a.bin"
    if pickled:
        torch.save({"a": torch.ones(2)}, path)
    else:
        path.write_bytes(safetensors.torch.save({"a": torch.ones(2)}))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    good = path.rename(tmp_path / f"net-{sha256}.pth")
    assert read_container(good).sha256 == sha256
    bad = good.rename(tmp_path / "net-abcdef01.pth")
    with pytest.raises(WeightsError, match=f"begins with abcdef01, .*{sha256[:8]}.*Download") as e:
        read_container(bad)
    assert "rename the file" in str(e.value)
