"""What starts are worth before any fine-tuning: simple classifiers on their features."""

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, JsonValue, ValidationError

from voxlift.config import FinetuneConfig, MachineConfig, NetworkConfig
from voxlift.core.errors import ConfigError, DataError
from voxlift.core.types import PublishedSplit
from voxlift.data.classification_cases import ClassificationCases
from voxlift.data.prepared_volumes import PreparedVolumes
from voxlift.embedding import FeatureOptions, describe_start, gathers_statistics
from voxlift.inference.classification import case_baselines
from voxlift.inference.embedding import (
    Features,
    Progress,
    compute_features,
    gather_on,
    make_start,
    read_start,
)
from voxlift.inference.embedding_file import Embeddings, write_embeddings
from voxlift.inference.feature_classifiers import (
    MAX_FOLDS,
    Integers,
    TrainingFeatures,
    Verdict,
    classify_features,
    make_folds,
)
from voxlift.inference.probe_controls import Candidate, plan_candidates
from voxlift.inference.probe_report import (
    SCRATCH,
    JudgedCases,
    ProbeScore,
    score_verdicts,
    tell,
    write_probe,
)
from voxlift.metrics.baselines import Baseline
from voxlift.training.classification import ClassificationData, open_classification_data
from voxlift.training.hardware import Device, choose_device
from voxlift.training.run_folder import describe_environment
from voxlift.weights.file import WeightFile

logger = logging.getLogger(__name__)


class ProbeOptions(FeatureOptions):
    """How starts are probed.

    Args:
        published_split: As of `FinetuneConfig`.
        fractions: Shares of training, validation and test cases where the data has no splits.
        label_fraction: Share of the training labels that may be used, 0 to 1.
        backbone: Network of `scratch`; None takes those of the starts, one for each of them.
        width: Channels of its first stage, likewise.
        stem: Edge of its stem kernel in voxels (3, 5, 7), likewise.
        save_features: Write the features of each start as well (`features/NUMBER-NAME.npz`).
    """

    published_split: PublishedSplit | None = None
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    label_fraction: float = Field(default=1.0, gt=0, le=1)
    backbone: str | None = None
    width: int | None = Field(default=None, ge=1)
    stem: Literal[3, 5, 7] | None = None
    save_features: bool = False


@dataclass(frozen=True)
class ProbeResult:
    """What the features of some starts are worth on labelled volumes.

    Args:
        title: What was judged, in words.
        scores: One a start and method.
        baselines: AUROC that one number a case reaches.
        sentences: What is better and worse than scratch.
        split: The cases that were judged: `test`, or `val` where there are none of those.
        folder: Where everything was written.
    """

    title: str
    scores: tuple[ProbeScore, ...]
    baselines: dict[str, Baseline]
    sentences: tuple[str, ...]
    split: str
    folder: Path


def probe(
    data: str,
    *,
    weights: Sequence[str] = (SCRATCH, "tiny", "tiny-axes"),
    out: str | Path = "runs/probe",
    options: ProbeOptions | None = None,
    cases: ClassificationCases | None = None,
    overwrite: bool = False,
    on_start: Callable[[str, int, int], None] | None = None,
    on_volume: Progress | None = None,
) -> ProbeResult:
    """Judge starts by what simple classifiers make of their features, without fine-tuning them.

    For each start a linear probe and k nearest neighbours learn from the training cases and are
    asked about the test cases. Splits, preprocessing and strides are those of `finetune` with the
    same data and seed; the validation cases are not used. `scratch`, a network of random weights,
    is the control: features are worth something as far as they are better than random ones. Starts
    of different architectures or strides have a control each, of their own.

    Written are `probe.json`, `probe.csv`, `predictions.csv` and `figures/probe.png`, and, if asked,
    the features. No patient is named.

    Args:
        data: Labelled volumes; see `FinetuneConfig`.
        weights: The starts: `scratch`, bundled ones, weight files, run folders.
        out: Folder for the results.
        options: How starts are probed.
        cases: Cases in memory, instead of those that `data` names.
        overwrite: Replace an earlier probe.
        on_start: Called before each start with its name, its number from 0, and how many there are.
        on_volume: Called with how many volumes are done for a start, and of how many.

    Raises:
        ConfigError: If options cannot work, or the folder holds something already.
        DataError: If the volumes cannot be read or split, or features are not finite.
        WeightsError: If there is no such start, or it does not fit.
    """
    options = options or ProbeOptions()
    folder = Path(out)
    _check_folder(folder, overwrite=overwrite)
    device = choose_device(MachineConfig(device=options.device))
    files = _read_starts(weights)
    question = _open_question(data, cases, options)
    candidates = plan_candidates(
        files,
        geometry=question.data.geometry,
        proposed=options.geometry == "auto",
        backbone=options.backbone,
        width=options.width,
        stem=options.stem,
    )
    answers = {}
    for number, candidate in enumerate(candidates):
        if on_start is not None:
            on_start(candidate.name, number, len(candidates))
        answers[candidate.name] = _ask(
            candidate, question, options, device=device, on_volume=on_volume
        )
    verdicts = {name: answer.verdicts for name, answer in answers.items()}
    judged = question.judged_cases
    scores = score_verdicts(
        verdicts,
        judged,
        num_features={name: answer.known.shape[1] for name, answer in answers.items()},
        controls={each.name: each.control for each in candidates if each.control is not None},
        seed=options.seed,
    )
    baselines = question.baselines(options.seed)
    if folder.exists():
        shutil.rmtree(folder)
    if options.save_features:
        _save_features(folder / "features", answers, question)
    write_probe(
        folder,
        scores,
        verdicts,
        judged,
        baselines=baselines,
        description=_describe(question, answers, options),
        title=question.title,
    )
    return ProbeResult(question.title, scores, baselines, tell(scores), question.split, folder)


@dataclass(frozen=True, eq=False)
class _Question:
    """What all starts are asked.

    Args:
        data: Cases, splits, preprocessing and strides.
        split: Name of the cases that are judged.
        known: The training cases.
        asked: The cases that are judged.
        fold: The fold of each training case.
    """

    data: ClassificationData
    split: str
    known: PreparedVolumes
    asked: PreparedVolumes
    fold: Integers | None

    @property
    def title(self) -> str:
        """Say how many cases there are for what."""
        return f"{len(self.known)} cases to learn from, {len(self.asked)} {self.split} cases"

    @property
    def judged_cases(self) -> JudgedCases:
        """The cases that are judged, as the report needs them."""
        cases, indices = self.data.cases, self.asked.indices
        return JudgedCases(
            ids=tuple(cases.cases[i].id for i in indices),
            labels=cases.labels[indices],
            groups=tuple(cases.groups[i] for i in indices),
            class_names=cases.class_names,
        )

    def baselines(self, seed: int) -> dict[str, Baseline]:
        """What one number a case reaches."""
        cases = self.data.cases
        if len(np.unique(cases.labels[self.asked.indices])) < 2:
            return {}
        return case_baselines(cases, self.asked.indices, self.known.indices, seed=seed)


@dataclass(frozen=True, eq=False)
class _Answer:
    """What became of one start.

    Args:
        verdicts: What the classifiers say about the judged cases.
        known: Features of the training cases.
        asked: Features of the judged cases.
        description: What network it was.
    """

    verdicts: tuple[Verdict, ...]
    known: Features
    asked: Features
    description: dict[str, JsonValue]


def _check_folder(folder: Path, *, overwrite: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not overwrite:
        raise ConfigError(
            f"{folder} is not empty. Replace its results with --overwrite, or choose another "
            "folder with --out."
        )
    if not (folder / "probe.json").is_file():
        raise ConfigError(
            f"{folder} holds no probe, so --overwrite will not delete it. Choose another folder "
            "with --out."
        )


def _read_starts(weights: Sequence[str]) -> dict[str, WeightFile | None]:
    """Read all starts, before anything is computed."""
    names = [str(each) for each in weights]
    if not names:
        raise ConfigError("There is no start to probe. Give some with --weights.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"Given twice: {', '.join(twice)}. Give each start once.")
    return {name: read_start(name) for name in names}


def _open_question(
    data: str, cases: ClassificationCases | None, options: ProbeOptions
) -> _Question:
    """Open, split and preprocess the volumes as a fine-tuning does."""
    try:
        config = FinetuneConfig(
            data=data,
            seed=options.seed,
            published_split=options.published_split,
            fractions=options.fractions,
            label_fraction=options.label_fraction,
            skip_bad=options.skip_bad,
            volume=options.volume,
            network=NetworkConfig(geometry=options.geometry),
            # Everything is chosen within the training cases: no class needs a validation case.
            folds=MAX_FOLDS,
        )
    except ValidationError as error:
        raise ConfigError(f"These options cannot work: {error}") from error
    opened = open_classification_data(config, cases)
    logger.info("%s", opened.cases.describe())
    for reason in opened.reasons:
        logger.info("%s", reason)
    split, judged = ("test", opened.test) if len(opened.test) else ("val", opened.val)
    if not len(judged):
        raise DataError(
            f"{opened.cases.origin} has neither test nor validation cases to judge by. Mark some, "
            "or leave the splits out to have them made."
        )
    known, asked = (
        PreparedVolumes(
            opened.cases, part, preprocessing=opened.preprocessing, skip_bad=options.skip_bad
        )
        for part in (opened.train, judged)
    )
    if split == "val":
        logger.warning("There are no test cases: the validation cases are judged.")
    fold = make_folds(
        opened.cases.labels[known.indices],
        [opened.cases.groups[i] for i in known.indices],
        seed=options.seed,
        class_names=opened.cases.class_names,
    )
    return _Question(opened, split, known, asked, fold)


def _ask(
    candidate: Candidate,
    question: _Question,
    options: ProbeOptions,
    *,
    device: Device,
    on_volume: Progress | None,
) -> _Answer:
    """Compute the features of one start, and let the classifiers learn from them."""
    known, asked = question.known, question.asked
    total, batch_size = len(known) + len(asked), options.batch_size
    start = make_start(
        candidate.name,
        candidate.file,
        geometry=candidate.geometry,
        proposed=candidate.proposed,
        architecture=candidate.architecture,
        seed=options.seed,
        device=device,
    )
    logger.info("%s: %s", candidate.name, start.describe())
    gathers = gathers_statistics(options, candidate.file, len(known))
    num_norms = gather_on(start, known, batch_size=batch_size) if gathers else 0

    def features_of(part: PreparedVolumes, before: int) -> Features:
        def progress(done: int, _: int) -> None:
            if on_volume is not None:
                on_volume(before + done, total)

        return compute_features(
            start, part, pool=options.pool, batch_size=batch_size, on_volume=progress
        )

    learnt_from, judged = features_of(known, 0), features_of(asked, len(known))
    cases = question.data.cases
    verdicts = classify_features(
        TrainingFeatures(
            learnt_from.astype(np.float64),
            cases.labels[known.indices],
            len(cases.class_names),
            question.fold,
        ),
        judged,
    )
    described = describe_start(start, num_norms=num_norms)
    return _Answer(verdicts, learnt_from, judged, described)


def _save_features(folder: Path, answers: dict[str, _Answer], question: _Question) -> None:
    """Write the features of each start; the number keeps apart what has the same last name."""
    cases = question.data.cases
    indices = np.concatenate([question.known.indices, question.asked.indices])
    for number, (name, answer) in enumerate(answers.items()):
        write_embeddings(
            folder / f"{number}-{Path(name).stem}.npz",
            Embeddings(
                features=np.concatenate([answer.known, answer.asked]),
                ids=tuple(cases.cases[i].id for i in indices),
                labels=cases.labels[indices],
                class_names=cases.class_names,
                description=answer.description,
            ),
        )


def _describe(
    question: _Question, answers: dict[str, _Answer], options: ProbeOptions
) -> dict[str, object]:
    return {
        "data": question.data.cases.describe(),
        "split": question.split,
        "num_train": len(question.known),
        "num_judged": len(question.asked),
        "options": options.model_dump(mode="json"),
        "preprocessing": question.data.preprocessing.model_dump(mode="json"),
        "reasons": list(question.data.reasons),
        "starts": [answer.description for answer in answers.values()],
        "failures": {**question.known.failures, **question.asked.failures},
        "environment": describe_environment(),
    }
