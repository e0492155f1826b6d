import csv
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from voxlift import quickstart as module
from voxlift.config import FinetuneConfig, NetworkConfig, PretrainConfig
from voxlift.core.errors import ConfigError, DataError, WeightsError
from voxlift.data.classification_cases import ClassificationCases
from voxlift.metrics.bootstrap import Interval
from voxlift.quickstart import QuickstartResult, StartResult, mean_auroc, quickstart
from voxlift.training.metrics_file import read_metrics
from voxlift.training.run import Run
from voxlift.training.run_folder import load_yaml
from voxlift.weights import bundled

STARTS = ("scratch", "tiny", "photographs")


@pytest.fixture(scope="module", autouse=True)
def _small(small_pretraining: PretrainConfig) -> Iterator[None]:
    """The quickstart with few and small volumes, few steps, and pictures instead of photographs."""
    network = NetworkConfig(width=4, stem=3)
    pretraining = small_pretraining.model_copy(update={"network": network})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "photographs", lambda: pretraining)
        for name, value in {
            "STARTS": STARTS,
            "NUM_TRAIN": 8,
            "NUM_VAL": 6,
            "NUM_TEST": 10,
            "SIZE_VOXELS": (18, 18, 18),
            "BATCH_SIZE": 4,
            "VAL_STEPS": 1,
            "SHORT_EPOCHS": 1,
        }.items():
            patch.setattr(module, name, value)
        yield


@pytest.fixture(scope="module")
def result(_small: None, tmp_path_factory: pytest.TempPathFactory) -> QuickstartResult:
    out = tmp_path_factory.mktemp("quickstart") / "run"
    return quickstart(out=out, seed=3, num_steps=2, num_seeds=2)


def answers(folder: Path) -> tuple[list[int], list[float]]:
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [int(row["label"] == "spiculated") for row in rows], [
        float(row["p_spiculated"]) for row in rows
    ]


def test_all_starts_have_the_same_budget_and_test(result: QuickstartResult) -> None:
    runs = sorted((result.folder / "finetune").iterdir())
    assert [run.name for run in runs] == [f"{s}-{n}" for s in sorted(STARTS) for n in range(2)]
    configs = [FinetuneConfig.model_validate(load_yaml(run / "config.yaml")) for run in runs]
    assert [config.seed for config in configs] == [3, 4] * 3
    same = [
        config.model_dump(
            exclude={"out": True, "seed": True, "network": {"weights", "width", "stem"}}
        )
        for config in configs
    ]
    assert all(each == same[0] for each in same)
    for run in runs:
        assert answers(run)[0] == answers(runs[0])[0]
        validated = [e for e in read_metrics(run / "metrics.jsonl") if e["name"] == "auroc"]
        assert [line["step"] for line in validated] == [0, 1]


def test_numbers_are_those_of_the_runs(result: QuickstartResult) -> None:
    assert [each.start for each in result.results] == list(STARTS)
    areas = {}
    for each in result.results:
        runs = [result.folder / "finetune" / f"{each.start}-{number}" for number in range(2)]
        areas[each.start] = [roc_auc_score(*answers(run)) for run in runs]
        assert each.auroc_by_seed == pytest.approx(areas[each.start])
        assert each.auroc.value == pytest.approx(np.mean(areas[each.start]))
        assert each.auroc.low <= each.auroc.value <= each.auroc.high
        lines = [
            [e["value"] for e in read_metrics(run / "metrics.jsonl") if e["name"] == "auroc"]
            for run in runs
        ]
        assert [step for step, _ in each.curve] == [1, 2]
        assert [value for _, value in each.curve] == pytest.approx(np.mean(lines, axis=0))
    for each in result.results[1:]:
        assert each.gain is not None
        expected = np.mean(areas[each.start]) - np.mean(areas["scratch"])
        assert each.gain.value == pytest.approx(expected)
    scratch = result.results[0]
    assert scratch.gain is None
    values = [value for _, value in scratch.curve]
    assert scratch.steps_to_target == 1 + values.index(next(v for v in values if v >= values[-1]))


def test_json_holds_what_the_table_shows(result: QuickstartResult) -> None:
    written = json.loads((result.folder / "quickstart.json").read_text())
    assert [each["start"] for each in written["starts"]] == list(STARTS)
    assert (written["seed"], written["steps"], written["batch_size"]) == (3, 2, 4)
    assert "24 cases" in written["data"]
    assert "val/top1" in written["pretraining_on_photographs"]
    assert written["environment"]["packages"]["voxlift"]
    for each, row, entry in zip(result.results, result.rows, written["starts"], strict=True):
        assert entry["auroc"]["value"] == each.auroc.value
        assert entry["validation_curve"] == [list(point) for point in each.curve]
        assert row[0] == each.start
        assert row[1].startswith(f"{each.auroc.value:.3f} (")
    assert result.rows[0][2] == ""


def test_figures_are_drawn(result: QuickstartResult) -> None:
    drawn = {path.name for path in (result.folder / "figures").iterdir()}
    assert drawn == {
        "lift.png",
        "photographs_and_kernels.png",
        "volumes.png",
        "learning_curves.png",
    }
    assert (result.folder / "pretrain" / "figures" / "learning_curves.png").is_file()


def test_it_says_in_words_what_this_was(result: QuickstartResult) -> None:
    assert "simulated nodules, which say little about real patients" in result.sentences[-1]
    assert any("--data" in line for line in result.next_commands)
    assert "2 seeds" in result.title


def test_results_are_not_written_over_unasked(result: QuickstartResult) -> None:
    before = sorted(result.folder.rglob("*"))
    with pytest.raises(ConfigError, match=r"not empty.*--overwrite.*--out"):
        quickstart(out=result.folder)
    with pytest.raises(DataError, match=r"nosuch\.csv"):
        quickstart(out=result.folder, data="nosuch.csv", overwrite=True)
    assert sorted(result.folder.rglob("*")) == before


def test_a_folder_that_is_no_quickstart_is_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="holds no quickstart"):
        quickstart(out=tmp_path, overwrite=True)
    with pytest.raises(ConfigError, match="holds no quickstart"):
        quickstart(out=tmp_path / "thesis.tex", overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


def test_a_missing_start_is_found_out_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled, "FOLDER", tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="'tiny' is not in this installation"):
        quickstart(out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_own_volumes(nodule_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STARTS", ("scratch", "photographs"))
    data = str(nodule_folder / "nodules.csv")
    (tmp_path / "pretrain").mkdir()
    result = quickstart(data=data, out=tmp_path, overwrite=True, num_steps=1, num_seeds=1)
    assert "your volumes" in result.sentences[-1]
    assert "30 cases" in result.title
    cases = (tmp_path / "finetune" / "scratch-0" / "predictions.csv").read_text().splitlines()
    assert cases[1].startswith("volumes/")
    # Patients, not volumes, are resampled; their numbers are not shown.
    assert "person" not in (tmp_path / "quickstart.json").read_text()


def test_three_classes_are_refused_at_once(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(3):
            array = np.random.default_rng([ord(name), number]).normal(size=(4, 4, 4))
            np.save(tmp_path / "data" / name / f"{number}.npy", array)
    with pytest.raises(DataError, match="3 classes"):
        quickstart(data=str(tmp_path / "data"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_ctrl_c_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def interrupted(config: Any, **_: object) -> Run:
        return Run(config.out, stopped_by=signal.SIGINT)

    monkeypatch.setattr(module, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        quickstart(out=tmp_path / "run", num_steps=1, num_seeds=1)


def test_mean_auroc_is_the_mean_over_seeds() -> None:
    generator = np.random.default_rng(0)
    labels = np.array([0, 1] * 10)
    scores = generator.normal(size=(20, 3)).round(1)
    expected = np.mean([roc_auc_score(labels, column) for column in scores.T])
    assert mean_auroc(labels, scores) == pytest.approx(expected)


def told(*starts: tuple[str, float, float, int | None]) -> str:
    """What is said of starts with a gain interval and the steps to scratch's end."""
    area = Interval(value=0.7, low=0.6, high=0.8)
    results = [
        StartResult(
            start=name,
            auroc=area,
            auroc_by_seed=(0.7,),
            gain=Interval(value=(low + high) / 2, low=low, high=high),
            steps_to_target=steps,
            curve=((10, 0.6), (20, 0.7)),
        )
        for name, low, high, steps in starts
    ]
    scratch = StartResult("scratch", area, (0.7,), None, 20, ((10, 0.6), (20, 0.7)))
    cases = ClassificationCases.from_arrays(
        np.zeros((4, 2, 2, 2)), [0, 1, 0, 1], splits=["train", "train", "test", "test"]
    )
    result = module._tell([scratch, *results], Path("out"), None, cases=cases, num_seeds=3)
    return " ".join(result.sentences[:-1])


@pytest.mark.parametrize(
    ("starts", "words"),
    [
        (
            [("good", 0.1, 0.2, 10), ("bad", -0.2, -0.1, None), ("same", -0.1, 0.1, 20)],
            "Better than scratch on these volumes: good. Worse than scratch on these volumes: bad. "
            "No difference that 3 seeds and 2 test cases could show: same. "
            "Sooner than scratch where scratch ended: good.",
        ),
        (
            [("same", -0.1, 0.1, None)],
            "No difference that 3 seeds and 2 test cases could show: same. "
            "No start reached sooner what scratch ended with.",
        ),
        (
            [("bad", -0.2, -0.1, 10)],
            "Worse than scratch on these volumes: bad. "
            "Sooner than scratch where scratch ended: bad.",
        ),
    ],
)
def test_words_follow_the_intervals(starts: Any, words: str) -> None:
    tell: Callable[..., str] = told
    assert tell(*starts) == words
