import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from voxlift.core.errors import ConfigError, DataError, WeightsError
from voxlift.data.classification_cases import ClassificationCases
from voxlift.nets.factory import create_backbone
from voxlift.probing import ProbeOptions, ProbeResult, probe
from voxlift.training.run import Run
from voxlift.weights.save import save_weights

FAST: dict[str, Any] = {"device": "cpu", "backbone": "resnet10", "width": 4, "stem": 3}
NARROW = ProbeOptions(**FAST)


def make_cases(
    labels: Sequence[int],
    *,
    groups: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    bright: float = 1.0,
) -> ClassificationCases:
    """Noise that is the rougher the higher the class, and no brighter on average."""
    generator = np.random.default_rng(0)
    arrays = []
    for label in labels:
        coarse = generator.normal(size=(9, 9, 9))
        fine = generator.normal(size=(9, 9, 9)) * label * bright
        smooth = sum(np.roll(coarse, shift, axis) for axis in range(3) for shift in (0, 1)) / 3
        arrays.append((100 * (smooth + fine)).astype(np.float32))
    return ClassificationCases.from_arrays(
        arrays,
        list(labels),
        groups=groups,
        splits=splits,
        class_names=[f"kind-{label}" for label in range(max(labels) + 1)],
        origin="noise",
    )


def split_cases(num_classes: int = 2) -> ClassificationCases:
    labels = [i % num_classes for i in range(48)]
    splits = ["train"] * 24 + ["val"] * 6 + ["test"] * 18
    return make_cases(labels, groups=[f"person-{i // 3}" for i in range(48)], splits=splits)


def options(**changes: Any) -> ProbeOptions:
    return ProbeOptions(**{**FAST, **changes})


def run(out: Path, cases: ClassificationCases, **changes: Any) -> ProbeResult:
    weights = changes.pop("weights", ("scratch",))
    return probe("noise", cases=cases, out=out, weights=weights, options=options(**changes))


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def compared(pretrained: Run, tmp_path_factory: pytest.TempPathFactory) -> ProbeResult:
    """A probe of scratch and a start, with its features; not to be changed."""
    return run(
        tmp_path_factory.mktemp("probe") / "run",
        split_cases(),
        weights=("scratch", str(pretrained.model_path)),
        save_features=True,
        seed=4,
    )


def test_every_start_has_two_scores(compared: ProbeResult, pretrained: Run) -> None:
    names = [(score.start, score.method) for score in compared.scores]
    model = str(pretrained.model_path)
    assert names == [
        ("scratch", "linear"),
        ("scratch", "k-nn"),
        (model, "linear"),
        (model, "k-nn"),
    ]
    assert [score.gain is None for score in compared.scores] == [True, True, False, False]
    assert compared.split == "test"
    assert set(compared.baselines) == {"mean_intensity"}
    assert any("scratch" in sentence or "could show" in sentence for sentence in compared.sentences)


@pytest.fixture(scope="module")
def mixed(pretrained: Run, tmp_path_factory: pytest.TempPathFactory) -> ProbeResult:
    """A probe of starts of two widths; not to be changed."""
    folder = tmp_path_factory.mktemp("mixed")
    wide = save_weights(create_backbone("resnet10", width=8, stem=3), folder / "wide.safetensors")
    return probe(
        "noise",
        cases=split_cases(),
        out=folder / "run",
        weights=(str(wide), "scratch", str(pretrained.model_path)),
        options=ProbeOptions(device="cpu"),
    )


def test_starts_of_other_architectures_have_controls_of_their_own(
    mixed: ProbeResult, pretrained: Run
) -> None:
    linear = [score for score in mixed.scores if score.method == "linear"]
    wide, narrow = "scratch resnet10, width 8", "scratch resnet10, width 4"
    assert [Path(score.start).stem for score in linear] == [wide, "wide", narrow, "model"]
    assert [score.control for score in linear] == [None, wide, None, narrow]
    assert [score.num_features for score in linear] == [64, 64, 32, 32]
    rows = read_rows(mixed.folder / "predictions.csv")
    for control, score in (linear[:2], linear[2:]):
        truth = [r["label"] == "kind-1" for r in rows if r["start"] == score.start]
        areas = [
            roc_auc_score(
                truth[: len(truth) // 2],
                [
                    float(r["p_kind-1"])
                    for r in rows
                    if (r["start"], r["method"]) == (each.start, "linear")
                ],
            )
            for each in (score, control)
        ]
        assert score.gain is not None
        assert score.gain.value == pytest.approx(areas[0] - areas[1], abs=1e-4)
    table = read_rows(mixed.folder / "probe.csv")
    assert [row["control"] for row in table[::2]] == ["", wide, "", narrow]
    started = json.loads((mixed.folder / "probe.json").read_text(encoding="utf-8"))["starts"]
    shapes = [each["architecture"] for each in started]
    assert shapes[0] == shapes[1] != shapes[2] == shapes[3]
    assert (mixed.folder / "figures" / "probe.png").is_file()


def test_scores_follow_from_the_written_predictions(compared: ProbeResult) -> None:
    rows = read_rows(compared.folder / "predictions.csv")
    assert len(rows) == 2 * 2 * 18
    areas: dict[tuple[str, str], float] = {}
    for score in compared.scores:
        mine = [r for r in rows if (r["start"], r["method"]) == (score.start, score.method)]
        truth = [row["label"] == "kind-1" for row in mine]
        areas[score.start, score.method] = roc_auc_score(
            truth, [float(r["p_kind-1"]) for r in mine]
        )
        assert score.auroc.value == pytest.approx(areas[score.start, score.method], abs=1e-4)
        called = [row["prediction"] == "kind-1" for row in mine]
        assert score.balanced_accuracy.value == pytest.approx(
            balanced_accuracy_score(truth, called)
        )
        assert score.auroc.low <= score.auroc.value <= score.auroc.high
        if score.gain is not None:
            gain = areas[score.start, score.method] - areas["scratch", score.method]
            assert score.gain.value == pytest.approx(gain, abs=1e-4)


def test_the_features_give_the_same_answers_by_another_computation(compared: ProbeResult) -> None:
    rows = read_rows(compared.folder / "predictions.csv")
    for number, score in enumerate(compared.scores):
        if score.method != "k-nn":
            continue
        (path,) = (compared.folder / "features").glob(f"{number // 2}-*.npz")
        with np.load(path) as file:
            features, labels = file["features"].astype(float), file["labels"]
        known, asked = features[:24], features[24:]
        mean, std = known.mean(0), known.std(0)
        known, asked = (
            (known - mean) / np.where(std > 0, std, 1),
            (asked - mean) / np.where(std > 0, std, 1),
        )
        expected = []
        for other in asked:
            nearest = np.argsort(((known - other) ** 2).sum(1))[: int(score.setting)]
            expected.append((labels[nearest].sum() + labels[:24].mean()) / (score.setting + 1))
        mine = [r for r in rows if (r["start"], r["method"]) == (score.start, "k-nn")]
        np.testing.assert_allclose([float(r["p_kind-1"]) for r in mine], expected, atol=1e-5)


def test_everything_is_written_and_no_patient_named(compared: ProbeResult) -> None:
    names = {path.relative_to(compared.folder).as_posix() for path in compared.folder.rglob("*.*")}
    assert names >= {"probe.json", "probe.csv", "predictions.csv", "figures/probe.png"}
    content = json.loads((compared.folder / "probe.json").read_text(encoding="utf-8"))
    assert content["num_train"] == 24
    assert content["num_judged"] == 18
    assert content["starts"][0]["sha256"] is None
    assert len(content["starts"][1]["sha256"]) == 64
    assert content["starts"][1]["batch_norms_with_statistics_of_the_data"] > 0
    assert content["options"] == ProbeOptions(**FAST, seed=4, save_features=True).model_dump(
        mode="json"
    )
    table = read_rows(compared.folder / "probe.csv")
    for row, score in zip(table, compared.scores, strict=True):
        assert float(row["auroc"]) == pytest.approx(score.auroc.value, abs=1e-6)
        assert (row["gain"] == "") == (score.gain is None)
    for path in compared.folder.rglob("*"):
        if path.is_file():
            assert b"person" not in path.read_bytes()


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path) -> None:
    first, second = (run(tmp_path / name, split_cases(), seed=4) for name in "ab")
    assert first.scores == second.scores
    third = run(tmp_path / "c", split_cases(), seed=5)
    assert third.scores != first.scores


def test_three_classes_and_validation_cases_in_place_of_test_cases(tmp_path: Path) -> None:
    cases = make_cases([i % 3 for i in range(36)], splits=["train"] * 24 + ["val"] * 12, bright=2.0)
    found = run(tmp_path / "out", cases, fractions=(0.7, 0.3, 0.0))
    assert found.split == "val"
    assert all(score.threshold is None for score in found.scores)
    rows = [r for r in read_rows(tmp_path / "out" / "predictions.csv") if r["method"] == "linear"]
    scores = [[float(row[f"p_kind-{k}"]) for k in range(3)] for row in rows]
    truth = [int(row["label"][-1]) for row in rows]
    scores_array: npt.NDArray[np.float64] = np.array(scores)
    scores_array /= scores_array.sum(1, keepdims=True)
    expected = roc_auc_score(truth, scores_array, multi_class="ovr", average="macro")
    assert found.scores[0].auroc.value == pytest.approx(expected, abs=1e-4)


def test_fewer_labels_are_those_of_finetune(tmp_path: Path) -> None:
    found = run(tmp_path / "out", split_cases(), label_fraction=0.5)
    assert found.title == "12 cases to learn from, 18 test cases"


def test_data_without_splits_is_split(nodule_folder: Path, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    done: list[tuple[int, int]] = []
    found = probe(
        str(nodule_folder / "nodules.csv"),
        weights=("scratch",),
        out=tmp_path / "out",
        options=options(fractions=(0.5, 0.25, 0.25), pool="all-maps"),
        on_start=lambda *call: calls.append(call),
        on_volume=lambda *step: done.append(step),
    )
    assert calls == [("scratch", 0, 1)]
    assert done[-1][0] == done[-1][1]
    assert found.scores[0].num_features == 4 + 4 + 8 + 16 + 32
    assert found.scores[0].gain is None


def test_one_patient_a_class_leaves_nothing_to_choose(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = [0] * 4 + [1] * 4 + [0, 1] * 4
    groups = ["a"] * 4 + ["b"] * 4 + [f"t{i}" for i in range(8)]
    cases = make_cases(labels, groups=groups, splits=["train"] * 8 + ["test"] * 8)
    found = run(tmp_path / "out", cases, fractions=(1.0, 0.0, 0.0))
    assert [score.setting for score in found.scores] == [1e-2, 3]
    assert "Too few patients" in caplog.text


def test_one_patient_in_the_test_has_no_interval(tmp_path: Path) -> None:
    labels = [i % 2 for i in range(20)]
    groups = [f"p{i}" for i in range(12)] + ["q"] * 8
    cases = make_cases(labels, groups=groups, splits=["train"] * 12 + ["test"] * 8)
    found = run(tmp_path / "out", cases, fractions=(1.0, 0.0, 0.0))
    assert np.isfinite(found.scores[0].auroc.value)
    assert np.isnan(found.scores[0].auroc.low)
    json.loads((tmp_path / "out" / "probe.json").read_text(), parse_constant=pytest.fail)


def test_data_that_cannot_be_probed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="of one class only"):
        run(tmp_path / "a", make_cases([0, 0, 0, 0]))
    with pytest.raises(DataError, match=r"1 group\(s\)"):
        run(tmp_path / "b", make_cases([0, 1] * 4, groups=["a"] * 8))
    with pytest.raises(DataError, match="neither test nor validation"):
        run(tmp_path / "c", make_cases([0, 1] * 4), fractions=(1.0, 0.0, 0.0))
    with pytest.raises(DataError, match=r"nosuch\.csv is not there"):
        probe("nosuch.csv", out=tmp_path / "d", options=NARROW)
    assert not list(tmp_path.iterdir())


def test_starts_that_cannot_be_probed(tmp_path: Path) -> None:
    for weights, error, message in (
        (("scratch", "nosuch"), WeightsError, "There are no weights 'nosuch'"),
        (("tiny", "tiny"), ConfigError, "Given twice: tiny"),
        ((), ConfigError, "no start to probe"),
    ):
        with pytest.raises(error, match=message):
            run(tmp_path / "out", split_cases(), weights=weights)
    with pytest.raises(ConfigError, match="Unknown backbone 'vgg'"):
        run(tmp_path / "out", split_cases(), backbone="vgg")
    with pytest.raises(ConfigError, match="Unknown geometry"):
        run(tmp_path / "out", split_cases(), geometry="round")
    assert not (tmp_path / "out").exists()


def test_folders_that_hold_something_are_not_touched(tmp_path: Path) -> None:
    cases = split_cases()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        run(tmp_path, cases)
    with pytest.raises(ConfigError, match="holds no probe"):
        probe("noise", cases=cases, out=tmp_path, options=NARROW, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    out = tmp_path / "out"
    run(out, cases)
    (out / "old.txt").touch()
    with pytest.raises(ConfigError, match="--overwrite"):
        run(out, cases)
    probe("noise", cases=cases, out=out, weights=("scratch",), options=NARROW, overwrite=True)
    assert not (out / "old.txt").exists()
    assert (out / "probe.json").is_file()
