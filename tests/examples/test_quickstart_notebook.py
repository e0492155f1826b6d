"""The notebook is executed, without errors, and is what the script builds."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


Notebook = dict[str, Any]


@pytest.fixture(scope="module")
def notebook() -> Notebook:
    path = ROOT / "examples" / "quickstart.ipynb"
    content: Notebook = json.loads(path.read_text(encoding="utf-8"))
    return content


def source_of(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_it_is_executed_in_order_and_without_errors(notebook: Notebook) -> None:
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert [output for output in outputs if "image/png" in output.get("data", {})]


def test_it_is_what_the_script_builds(notebook: Notebook) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "build_notebook.py"))
    built = script["build"]()
    assert [(cell["cell_type"], source_of(cell)) for cell in notebook["cells"]] == [
        (cell["cell_type"], source_of(cell)) for cell in built["cells"]
    ]


def test_it_shows_no_folders_of_a_machine(notebook: Notebook) -> None:
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            text = str({k: v for k, v in output.get("data", {}).items() if k != "image/png"})
            text += str(output.get("text", ""))
            assert not re.search(r"/(home|root|tmp|Users|var|work)/", text), text
