import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from voxlift.core.errors import DataError
from voxlift.metrics.baselines import Baseline, TrivialFeatures, trivial_baselines


def _features(num_cases: int, *, seed: int, num_classes: int = 2) -> TrivialFeatures:
    generator = np.random.default_rng(seed)
    labels = generator.integers(num_classes, size=num_cases)
    return TrivialFeatures(
        labels=labels,
        mean_intensity=generator.normal(-500 - 60 * labels, 100),
        mask_volume=generator.normal(900 + 400 * labels, 400),
        groups=generator.integers(num_cases // 2, size=num_cases),
    )


def test_the_baselines_agree_with_scikit_learn() -> None:
    train, test = _features(200, seed=0), _features(100, seed=1)
    baselines = trivial_baselines(test, train=train, num_samples=100)
    assert list(baselines) == ["mean_intensity", "mask_volume"]
    # Class 1 is darker: the direction is turned round.
    darker = baselines["mean_intensity"]
    assert darker.rises_with_class == (False,)
    assert darker.auroc.value == pytest.approx(1 - roc_auc_score(test.labels, test.mean_intensity))
    larger = baselines["mask_volume"]
    assert larger.rises_with_class == (True,)
    assert larger.auroc.value == pytest.approx(roc_auc_score(test.labels, test.mask_volume))
    assert larger.train_auroc == pytest.approx(roc_auc_score(train.labels, train.mask_volume))
    assert larger.auroc.low < larger.auroc.value < larger.auroc.high


def test_the_direction_comes_from_training() -> None:
    train = TrivialFeatures(labels=[0, 0, 1, 1], mean_intensity=[1, 2, 3, 4])
    test = TrivialFeatures(labels=[0, 1, 0, 1], mean_intensity=[4, 1, 3, 2])
    baselines = trivial_baselines(test, train=train, num_samples=20)
    assert list(baselines) == ["mean_intensity"]
    assert baselines["mean_intensity"].auroc.value == 0
    assert baselines["mean_intensity"].train_auroc == 1


def test_several_classes_are_averaged() -> None:
    train, test = _features(300, seed=0, num_classes=3), _features(150, seed=1, num_classes=3)
    found = trivial_baselines(test, train=train, num_samples=50)["mask_volume"]
    labels, values = np.asarray(test.labels), np.asarray(test.mask_volume)
    signs = np.where(found.rises_with_class, 1, -1)
    areas = [roc_auc_score(labels == k, signs[k] * values) for k in range(3)]
    assert found.auroc.value == pytest.approx(np.mean(areas))
    assert found.rises_with_class[0] is False
    assert found.rises_with_class[2] is True


def test_one_patient_has_no_interval() -> None:
    train = TrivialFeatures(labels=[0, 1], mean_intensity=[1, 2], groups=["p", "p"])
    found = trivial_baselines(train, train=train, num_samples=10)["mean_intensity"]
    assert np.isnan(found.auroc.low)
    assert Baseline.model_validate_json(found.model_dump_json()).model_dump() == found.model_dump()


@pytest.mark.parametrize(
    ("labels", "values", "message"),
    [
        ([0, 1], [1.0, np.nan], "1 values that are not finite"),
        ([0, 1], [1.0], "train cases has the shape"),
        ([0, 0], [1.0, 2.0], "one class"),
    ],
)
def test_bad_features_are_refused(labels: list[int], values: list[float], message: str) -> None:
    test = TrivialFeatures(labels=[0, 1], mean_intensity=[1, 2])
    train = TrivialFeatures(labels=labels, mean_intensity=values)
    with pytest.raises(DataError, match=message):
        trivial_baselines(test, train=train)
