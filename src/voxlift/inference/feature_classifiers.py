"""Two simple classifiers on features: a linear probe and k nearest neighbours.

What each may choose (the strength of the penalty, the number of neighbours, the threshold) it
chooses by cross-validation among the training cases, in which no patient is divided.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from voxlift.core.errors import DataError
from voxlift.data.splits import folds
from voxlift.metrics.classification import choose_threshold

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Fit = Callable[[Floats, Integers, Floats, float], Floats]
"""From training features, their labels, other features and a setting to their probabilities."""

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Inverse strengths C of the L2 penalty that are tried, the strongest penalty first."""

NEIGHBOURS = (25, 15, 9, 5, 3, 1)
"""Numbers of neighbours that are tried, the smoothest first."""

MAX_FOLDS = 5
WITHOUT_FOLDS = {"linear": 1e-2, "k-nn": 3.0}
"""What is taken where there are too few patients to choose by cross-validation."""

MAX_ITERATIONS = 10_000
LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True, eq=False)
class TrainingFeatures:
    """Features that a classifier may learn from.

    Args:
        features: One row a case.
        labels: Class numbers from 0.
        num_classes: Classes of the data set.
        fold: The fold of each case; None where none could be made.
    """

    features: Floats
    labels: Integers
    num_classes: int
    fold: Integers | None


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a classifier says about the cases that are judged.

    Args:
        method: `linear` or `k-nn`.
        setting: The C of the penalty, or the number of neighbours.
        threshold: Probability of class 1 from which it is called, of two classes.
        probabilities: One row a case, one column a class.
    """

    method: str
    setting: float
    threshold: float | None
    probabilities: Floats


def make_folds(
    labels: Integers, groups: Sequence[str], *, seed: int, class_names: Sequence[str]
) -> Integers | None:
    """Divide training cases into up to five folds, each with every class and whole patients.

    None where a class has the cases of one patient only; what would be chosen by the folds then has
    to be given.
    """
    for num_folds in range(MAX_FOLDS, 1, -1):
        try:
            return folds(labels, groups, num_folds=num_folds, seed=seed, class_names=class_names)
        except DataError as error:
            reason = error
    logger.warning(
        "Too few patients to choose anything by cross-validation (%s) The penalty "
        "is C = %g, and %g neighbours are asked.",
        reason,
        WITHOUT_FOLDS["linear"],
        WITHOUT_FOLDS["k-nn"],
    )
    return None


def classify_features(
    train: TrainingFeatures, features: npt.NDArray[np.floating]
) -> tuple[Verdict, Verdict]:
    """Let a linear probe and k nearest neighbours classify cases by their features.

    Features are standardised by mean and deviation of the training cases; one that does not vary
    among them counts for nothing. The setting with the least mean negative log-likelihood over the
    held-out folds is taken, and of equals the smoother one; with two classes a threshold is chosen
    on the same held-out answers.

    Args:
        train: What to learn from.
        features: Of the cases that are judged.

    Returns:
        What the linear probe says, and what the neighbours say.

    Raises:
        DataError: If the training cases are of one class, or features are not finite.
    """
    if len(np.unique(train.labels)) < 2:
        raise DataError(
            f"The {len(train.labels)} training cases are of one class only, so nothing can be "
            "learnt from their features. Give cases of two or more."
        )
    judged = np.asarray(features, np.float64)
    for name, values in (("training", train.features), ("judged", judged)):
        if not np.isfinite(values).all():
            raise DataError(f"The features of the {name} cases hold NaN or infinite numbers.")
    known, fold = np.asarray(train.features, np.float64), train.fold
    smallest = len(known) if fold is None else len(known) - int(np.bincount(fold).max())
    neighbours = [k for k in NEIGHBOURS if k <= smallest]
    return (
        _answer(train, known, judged, "linear", linear_probabilities, PENALTIES),
        _answer(train, known, judged, "k-nn", neighbour_probabilities, neighbours),
    )


def _answer(
    train: TrainingFeatures,
    known: Floats,
    judged: Floats,
    method: str,
    fit: Fit,
    settings: Sequence[float],
) -> Verdict:
    """Choose a setting and a threshold by the folds, then learn from all training cases."""
    labels, fold = train.labels, train.fold

    def fitted(rows: npt.NDArray[np.bool_], others: Floats, setting: float) -> Floats:
        mine, theirs = standardised(known[rows], others)
        return _complete(fit(mine, labels[rows], theirs, setting), labels[rows], train.num_classes)

    setting, threshold = min(WITHOUT_FOLDS[method], max(settings)), None
    if fold is not None:
        held_out = {}
        for each in settings:
            answers = np.empty((len(labels), train.num_classes))
            for number in range(int(fold.max()) + 1):
                answers[fold == number] = fitted(fold != number, known[fold == number], each)
            held_out[each] = answers
        losses = [log_loss(held_out[each], labels) for each in settings]
        # The first of equals is the smoothest.
        setting = float(settings[int(np.argmin(np.round(losses, 9)))])
        if train.num_classes == 2:
            threshold = choose_threshold(held_out[setting], labels)
    probabilities = fitted(np.ones(len(labels), bool), judged, setting)
    return Verdict(method, setting, threshold, probabilities)


def standardised(known: Floats, others: Floats) -> tuple[Floats, Floats]:
    """Standardise features by mean and deviation of the known ones."""
    mean, deviation = known.mean(0), known.std(0)
    varies = deviation > 1e-6 * np.maximum(np.abs(mean), 1e-6)
    scale = np.where(varies, deviation, 1.0)
    return (known - mean) / scale * varies, (others - mean) / scale * varies


def linear_probabilities(known: Floats, labels: Integers, others: Floats, setting: float) -> Floats:
    """Classify by logistic regression with an L2 penalty of inverse strength `setting`."""
    model = LogisticRegression(C=setting, max_iter=MAX_ITERATIONS, tol=1e-6)
    answers: Floats = model.fit(known, labels).predict_proba(others)
    return answers


def neighbour_probabilities(
    known: Floats, labels: Integers, others: Floats, setting: float
) -> Floats:
    """Let the nearest `setting` training cases vote, and all cases together with one voice.

    The last voice, shared out as the classes are among the training cases, keeps the probability of
    a class above 0 that no neighbour has.
    """
    number = int(setting)
    model = KNeighborsClassifier(n_neighbors=number, algorithm="brute")
    votes = number * model.fit(known, labels).predict_proba(others)
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    answers: Floats = (votes + shares) / (number + 1)
    return answers


def _complete(probabilities: Floats, labels: Integers, num_classes: int) -> Floats:
    """Give classes that were not there to be learnt a probability of 0."""
    complete = np.zeros((len(probabilities), num_classes))
    complete[:, np.unique(labels)] = probabilities
    return complete


def log_loss(probabilities: Floats, labels: Integers) -> float:
    """Compute the mean negative log-likelihood of the true classes."""
    true = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(true, LEAST_PROBABILITY)).mean())
