import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from voxlift.core.errors import ConfigError
from voxlift.core.extras import PACKAGES, require_extra
from voxlift.metrics.average_precision import average_precision
from voxlift.nets.factory import create_backbone
from voxlift.weights.hub import push_weights
from voxlift.weights.load import load_weights

ROOT = Path(__file__).parents[2]


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", each, maxsplit=1)[0] for each in requirements}


def test_extras_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    assert extras.pop("all") == [f"voxlift[{','.join(sorted(extras))}]"]
    assert extras.keys() == PACKAGES.keys()
    development = names_of(project["dependency-groups"]["dev"])
    always = names_of(project["project"]["dependencies"])
    for extra, requirements in extras.items():
        named = names_of(requirements)
        assert {name.replace("_", "-") for name in PACKAGES[extra]} <= named
        assert named <= development
        assert not named & always


@pytest.mark.parametrize("extra", PACKAGES)
def test_missing_packages_and_their_extra_are_named(
    extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_extra(extra, "Things")
    # None in sys.modules makes a package look as if it were absent.
    name = PACKAGES[extra][-1]
    monkeypatch.setitem(sys.modules, name, None)
    wanted = rf'^Things need {name}, .*: pip install "voxlift\[{extra}\]"\. Or not\.$'
    with pytest.raises(ConfigError, match=wanted):
        require_extra(extra, "Things", otherwise="Or not.")


def test_features_name_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    network = create_backbone("resnet10", width=4, stem=3)
    for names in PACKAGES.values():
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"voxlift\[timm\]"):
        load_weights(network, "i3d:timm/resnet18")
    for address in ("hf://someone/something", "i3d:timm/resnet18.a1_in1k"):
        with pytest.raises(ConfigError, match=r"voxlift\[hub\]"):
            load_weights(network, address)
    with pytest.raises(ConfigError, match=r"voxlift\[hub\]"):
        push_weights("a.safetensors", "someone/something")
    with pytest.raises(ConfigError, match=r"voxlift\[swin\]"):
        create_backbone("swinunetr", width=12)
    with pytest.raises(ConfigError, match=r"voxlift\[coco\]"):
        average_precision([np.zeros((0, 5))], [np.array([[0, 0, 1, 1]])])
