from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from voxlift.core.errors import WeightsError
from voxlift.core.preprocessing import Preprocessing
from voxlift.weights.file import WeightFile, read_weight_file, write_weight_file
from voxlift.weights.header import HeadDescription, WeightHeader
from voxlift.weights.model_card import model_card

REPOSITORY = "org/lung-nodules"


def metadata(card: str) -> dict[str, Any]:
    """What the hub's own reader makes of the top of a card."""
    data: dict[str, Any] = ModelCard(card).data.to_dict()  # type: ignore[no-untyped-call]
    return data


@pytest.fixture
def described(header: WeightHeader) -> WeightHeader:
    """A header with everything."""
    return header.model_copy(
        update={
            "preprocessing": Preprocessing(intensity="window", window=(-1000, 400), unit="HU"),
            "head": HeadDescription(
                task="classify", num_classes=2, class_names=("benign", "malignant"), threshold=0.4
            ),
            "provenance": {
                "data": "LIDC",
                "command": "voxlift finetune --data /home/anna/smith.csv",
                "start": "/home/anna/cspr-5ff2ecb7.pth",
                "metrics": {"test/auroc": 0.912345, "test/cases": ["smith"], "val": {"a": 1}},
                "cases": ["smith", "jones"],
                "recipe": None,
                "seed": 3,
            },
            "licence": "CC BY-NC 4.0",
            "citation": "arXiv:2201.01426",
        }
    )


@pytest.fixture
def make_card(tmp_path: Path) -> Any:
    def make(header: WeightHeader, **options: Any) -> str:
        path = tmp_path / "secret-folder" / "model.safetensors"
        write_weight_file(path, {"conv1.weight": torch.zeros(2, 4)}, header)
        return model_card(path, repository=REPOSITORY, **options)

    return make


def test_the_hub_understands_its_metadata(make_card: Any, described: WeightHeader) -> None:
    data = metadata(make_card(described))
    assert data == {
        "license": "cc-by-nc-4.0",
        "library_name": "voxlift",
        "pipeline_tag": "image-classification",
        "tags": ["voxlift", "medical-imaging", "3d", "pytorch", "resnet10"],
    }


def test_people_find_what_they_need(make_card: Any, described: WeightHeader) -> None:
    card = make_card(described)
    for text in (
        "# lung-nodules\n",
        "network that classifies volumes",
        'voxlift.create_backbone(\n    "resnet10", weights="hf://org/lung-nodules"\n)',
        "| Head | classify, 2 classes: benign, malignant |",
        "| Threshold | 0.4 |",
        "| Numbers in the file | 8 |",
        "`pretrain`; every triple is (depth, height, width)",
        "| Stem stride | (1, 2, 2) |",
        "-1000 to 400 HU scaled to 0..1",
        "| Data | LIDC |",
        "| test/auroc | 0.9123 |",
        "| Seed | 3 |",
        "CC BY-NC 4.0. **Not for commercial use.**",
        "arXiv:2201.01426",
        "Research software, not a medical device",
    ):
        assert text in card
    assert "None" not in card


def test_no_folder_and_no_case_is_named(make_card: Any, described: WeightHeader) -> None:
    card = make_card(described)
    for text in ("anna", "smith", "jones", "secret-folder", "/home"):
        assert text not in card
    assert "--data (local path)" in card
    assert "cspr-5ff2ecb7.pth" in card


def test_a_bare_header_makes_a_card_too(make_card: Any, header: WeightHeader) -> None:
    card = make_card(header)
    data = metadata(card)
    assert data["license"] == "unknown"
    assert data["pipeline_tag"] == "image-feature-extraction"
    assert "Weights of a 3D `resnet10` backbone" in card
    assert "Not stated. Ask the authors" in card
    assert card.count("Not stated.") == 4


def test_the_user_may_add_words(make_card: Any, header: WeightHeader) -> None:
    card = make_card(header, summary="Finds lung nodules.", limits="Thick slices only.")
    assert "# lung-nodules\n\nFinds lung nodules.\n" in card
    assert card.endswith("Thick slices only.\n")


@pytest.mark.parametrize(
    ("task", "pipeline", "does"),
    [
        ("segment", "image-segmentation", "segments volumes"),
        ("detect", "object-detection", "detects findings"),
        ("pretrain", "image-feature-extraction", "pre-trained on labelled photographs"),
        ("rank", "image-feature-extraction", "was trained to rank"),
    ],
)
def test_tasks(make_card: Any, header: WeightHeader, task: str, pipeline: str, does: str) -> None:
    head = HeadDescription(task=task, num_classes=2)
    architecture = header.architecture.model_copy(update={"in_channels": 4, "num_slices": 9})
    card = make_card(header.model_copy(update={"head": head, "architecture": architecture}))
    assert metadata(card)["pipeline_tag"] == pipeline
    assert does in card
    assert "2 classes: not named" in card
    assert '"resnet10", in_channels=4, weights=' in card
    assert "| Slices | 9 |" in card


@pytest.mark.parametrize(
    ("licence", "known"),
    [
        ("Apache-2.0", "apache-2.0"),
        ("Apache-2.0, as Voxlift itself; CIFAR-10 states no licence", "apache-2.0"),
        ("MIT", "mit"),
        ("CC BY-NC-SA 4.0", "cc-by-nc-sa-4.0"),
        ("Apache-2.0; the data are for non-commercial use", "other"),
        ("Apache-2.0 for the code", "other"),
        ("ask us", "other"),
    ],
)
def test_licences_the_hub_knows(
    make_card: Any, header: WeightHeader, licence: str, known: str
) -> None:
    card = make_card(header.model_copy(update={"licence": licence}))
    data = metadata(card)
    assert data["license"] == known
    assert (data.get("license_name") is not None) == (known == "other")
    if known == "other":
        assert data["license_link"] == "https://huggingface.co/org/lung-nodules/blob/main/README.md"
    assert licence in card


def test_nothing_breaks_out_of_a_table(make_card: Any, header: WeightHeader) -> None:
    provenance = {"data": "a | b\n<script>"}
    card = make_card(header.model_copy(update={"provenance": provenance}))
    assert "| Data | a \\| b &lt;script> |" in card


def test_only_voxlifts_own_files_get_a_card(weight_path: Path) -> None:
    read = read_weight_file(weight_path)
    assert "# name" in model_card(read, repository="org/name")
    foreign = WeightFile(read.path, read.sha256, "medicalnet", read.tensors, read.header)
    with pytest.raises(WeightsError, match=r"of the format medicalnet.*save_weights"):
        model_card(foreign, repository="org/name")
