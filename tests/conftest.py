"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("voxlift", deadline=None)
settings.load_profile("voxlift")


@pytest.fixture
def data_folder() -> Path:
    """The folder of the real data sets named by VOXLIFT_DATA."""
    folder = os.environ.get("VOXLIFT_DATA")
    if not folder:
        pytest.skip("VOXLIFT_DATA is not set")
    return Path(folder)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
