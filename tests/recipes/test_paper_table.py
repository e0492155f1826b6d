"""The table that lays the papers' recipes beside ours shows the values that ours have."""

import ast
import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from voxlift.recipes.registry import FINETUNE_RECIPES, PRETRAIN_RECIPES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "recipes.md"
RECIPES: dict[str, Any] = {**PRETRAIN_RECIPES, **FINETUNE_RECIPES}
FIELD = re.compile(r"`([\w.]+)`")
VALUE = re.compile(r"`([^`]+)`(; .+)?")


def tables() -> dict[str, list[list[str]]]:
    """Rows of each recipe's table, by its heading."""
    found = {}
    for part in PAGE.read_text(encoding="utf-8").split("\n### ")[1:]:
        rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line[:1] == "|"]
        found[part.split("\n")[0]] = rows[2:]
    return found


def literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def test_every_recipe_of_a_paper_has_a_table() -> None:
    assert set(tables()) == {
        "imagenet-resnet18",
        "lidc-classify",
        "lidc-segment-full",
        "bcv",
        "lits-liver",
        "deeplesion-mp3d63",
    }


@pytest.mark.parametrize(("name", "rows"), tables().items(), ids=tables())
def test_ours_are_the_values_of_the_recipe(name: str, rows: list[list[str]]) -> None:
    config = RECIPES[name]()
    checked = 0
    for field, original, ours in rows:
        assert original
        if FIELD.fullmatch(field):
            value = VALUE.fullmatch(ours)
            assert value, f"{name}: {field} has {ours}"
            found = reduce(getattr, field.strip("`").split("."), config)
            assert found == literal(value[1]), f"{name}: {field} is {found}, not {value[1]}"
            checked += 1
    assert checked >= 15
