from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from voxlift.core.errors import WeightsError
from voxlift.core.preprocessing import Preprocessing
from voxlift.inference.saved_model import SavedModel, find_models, load_model
from voxlift.nets.factory import create_backbone
from voxlift.weights.header import HeadDescription
from voxlift.weights.save import save_weights

MakeModel = Callable[..., SavedModel]
SaveModel = Callable[..., Path]


def volumes() -> torch.Tensor:
    return torch.randn(3, 1, 8, 8, 8, generator=torch.Generator().manual_seed(1))


def test_probabilities_are_those_of_the_network(make_model: MakeModel) -> None:
    model = make_model("a", "b", "c")
    logits = model.networks[0](volumes()).detach().double()
    expected = logits.exp() / logits.exp().sum(1, keepdim=True)
    found = model.probabilities(volumes())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    assert not found.requires_grad


def test_several_networks_are_averaged(make_model: MakeModel) -> None:
    one, two = make_model(seed=1), make_model(seed=2)
    both = SavedModel(one.networks + two.networks, one.head, one.preprocessing)
    expected = (one.probabilities(volumes()) + two.probabilities(volumes())) / 2
    torch.testing.assert_close(both.probabilities(volumes()), expected)
    assert not torch.allclose(one.probabilities(volumes()), two.probabilities(volumes()))


def test_classes_without_names_are_numbered(make_model: MakeModel) -> None:
    named = make_model("no", "yes")
    assert named.class_names == ("no", "yes")
    nameless = HeadDescription(task="classify", num_classes=2)
    assert SavedModel(named.networks, nameless, named.preprocessing).class_names == ("0", "1")


def test_a_saved_model_answers_as_the_network_did(
    tmp_path: Path, make_model: MakeModel, save_model: SaveModel
) -> None:
    path = save_model(tmp_path / "model.safetensors", seed=4, threshold=0.3)
    expected = make_model(seed=4).probabilities(volumes())
    for source in (path, str(path), tmp_path):
        loaded = load_model(source)
        assert torch.equal(loaded.probabilities(volumes()), expected)
        assert loaded.head.threshold == 0.3
        assert loaded.class_names == ("benign", "malignant")
        assert not any(network.training for network in loaded.networks)


def test_folds_are_averaged_with_the_mean_threshold(
    tmp_path: Path, make_model: MakeModel, save_model: SaveModel
) -> None:
    for number, threshold in enumerate((0.2, 0.3, 0.7)):
        save_model(
            tmp_path / f"fold-{number}" / "model.safetensors",
            seed=number,
            threshold=threshold,
            settings={"folds": 3},
        )
    assert [Path(p).parent.name for p in find_models(tmp_path)] == ["fold-0", "fold-1", "fold-2"]
    loaded = load_model(tmp_path)
    answers = [make_model(seed=number).probabilities(volumes()) for number in range(3)]
    torch.testing.assert_close(loaded.probabilities(volumes()), torch.stack(answers).mean(0))
    assert loaded.head.threshold == pytest.approx(0.4)
    # One of them alone, by its file or its folder.
    for source in (tmp_path / "fold-1", tmp_path / "fold-1" / "model.safetensors"):
        one = load_model(source)
        assert torch.equal(one.probabilities(volumes()), answers[1])
        assert one.head.threshold == 0.3


def test_missing_folds_are_no_silent_average(tmp_path: Path, save_model: SaveModel) -> None:
    save_model(tmp_path / "fold-0" / "model.safetensors", settings={"folds": 3})
    with pytest.raises(WeightsError, match=r"1 of 3 folds.*--resume"):
        load_model(tmp_path)


@pytest.mark.parametrize("differs", ["classes", "preprocessing"])
def test_folds_with_different_questions_are_refused(
    tmp_path: Path, save_model: SaveModel, differs: str
) -> None:
    save_model(tmp_path / "fold-0" / "model.safetensors", settings={"folds": 2})
    path = tmp_path / "fold-1" / "model.safetensors"
    if differs == "classes":
        save_model(path, "malignant", "benign", settings={"folds": 2})
    else:
        save_model(path, preprocessing=Preprocessing(), settings={"folds": 2})
    with pytest.raises(WeightsError, match="cannot be averaged"):
        load_model(tmp_path)


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds no model\.safetensors.*--resume"):
        load_model(tmp_path)


def test_backbone_alone_cannot_answer(tmp_path: Path, make_model: MakeModel) -> None:
    network = make_model().networks[0]
    assert isinstance(network.backbone, nn.Module)
    path = save_weights(network.backbone, tmp_path / "backbone.safetensors")
    with pytest.raises(WeightsError, match=r"backbone alone.*voxlift finetune"):
        load_model(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nosuch\.safetensors"):
        load_model(tmp_path / "nosuch.safetensors")


def test_a_task_of_the_future_is_refused(tmp_path: Path) -> None:
    backbone = create_backbone("resnet10", width=4, stem=3)
    path = save_weights(
        backbone,
        tmp_path / "a.safetensors",
        preprocessing=Preprocessing(),
        head=HeadDescription(task="register", num_classes=2),
    )
    with pytest.raises(WeightsError, match="task 'register'; known are"):
        load_model(path)


def test_settings_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(
        create_backbone("resnet10", width=4),
        path,
        preprocessing=Preprocessing(),
        head=HeadDescription(task="segment", num_classes=2, settings={"labels": 5}),
    )
    with pytest.raises(WeightsError, match=r"describes a network that cannot be made"):
        load_model(path)
