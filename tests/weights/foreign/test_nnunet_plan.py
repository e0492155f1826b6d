from typing import Any

import numpy as np
import pytest

from voxlift.data.intensity import find_scale
from voxlift.weights.foreign.nnunet_plan import NnunetPlan, read_plan


def nnunet(configuration: dict[str, Any], **plans: Any) -> NnunetPlan:
    plan = {"configurations": {"3d_fullres": configuration}, **plans}
    return read_plan({"init_args": {"plans": plan, "configuration": "3d_fullres"}})


def test_ct_normalization_is_repeated_exactly() -> None:
    facts = {"mean": 101.5, "std": 76.25, "percentile_00_5": -58.0, "percentile_99_5": 302.0}
    plan = nnunet(
        {"normalization_schemes": ["CTNormalization"], "spacing": [2.5, 0.7, 0.7]},
        foreground_intensity_properties_per_channel={"0": {**facts, "median": 100.0}},
    )
    preprocessing = plan.preprocessing(1)
    assert preprocessing is not None
    assert preprocessing.unit == "HU"
    assert preprocessing.spacing_mm == (2.5, 0.7, 0.7)
    volume = np.linspace(-1000, 1000, 64, dtype=np.float32).reshape(4, 4, 4)
    expected = (volume.clip(-58, 302) - 101.5) / 76.25
    found = find_scale(volume, preprocessing).apply(volume)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert plan.preprocessing(2) is None


@pytest.mark.parametrize(
    "facts",
    [
        None,
        {},
        {"0": {"mean": 1.0}},
        {"0": {"mean": 1.0, "std": 0.0, "percentile_00_5": 0.0, "percentile_99_5": 1.0}},
        {"0": {"mean": 1.0, "std": 1.0, "percentile_00_5": 2.0, "percentile_99_5": 1.0}},
        {"0": {"mean": "nan", "std": 1.0, "percentile_00_5": 0.0, "percentile_99_5": 1.0}},
    ],
)
def test_ct_normalization_without_its_numbers_is_unknown(facts: Any) -> None:
    plan = nnunet(
        {"normalization_schemes": ["CTNormalization"]},
        foreground_intensity_properties_per_channel=facts,
    )
    assert plan.normalization == ("CTNormalization",)
    assert plan.preprocessing(1) is None


def test_older_plans_of_nnunet_name_poolings() -> None:
    pools = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
    plan = nnunet({"UNet_class_name": "ResidualEncoderUNet", "pool_op_kernel_sizes": pools})
    assert plan.strides == ((1, 1, 1), (1, 2, 2), (2, 2, 2))
    assert plan.network == "ResidualEncoderUNet"
    assert nnunet({"pool_op_kernel_sizes": [1, 2]}).strides == ((1, 1, 1), (2, 2, 2))


def test_nnssl_knows_networks_by_name_and_by_options() -> None:
    named = {"architecture_plans": {"arch_class_name": "ResEncL", "arch_kwargs": None}}
    plan = read_plan({"nnssl_adaptation_plan": named})
    assert plan.network == "ResEncL"
    assert plan.strides == ((1, 1, 1), *((2, 2, 2),) * 5)
    options = {"strides": [[1, 1, 1], [2, 2, 1]]}
    network = {"arch_class_name": "ResidualEncoderUNet", "arch_kwargs": options}
    plan = read_plan({"nnssl_adaptation_plan": {"architecture_plans": network}})
    assert plan.strides == ((1, 1, 1), (2, 2, 1))
    older = {"architecture_name": "PrimusM", "state_dict_key_to_encoder": "eva"}
    plan = read_plan({"nnssl_adaptation_plan": older})
    assert (plan.network, plan.encoder_key, plan.strides) == ("PrimusM", "eva", None)


def test_of_several_configurations_the_trained_one_counts() -> None:
    configurations = {"a": {"spacing": [1, 1, 1]}, "b": {"spacing": [2, 2, 2]}}
    adaptation = {"pretrain_plan": {"configurations": configurations}}
    assert read_plan({"nnssl_adaptation_plan": adaptation}).spacing_mm is None
    extras = {"nnssl_adaptation_plan": adaptation, "init_args": {"configuration_name": "b"}}
    assert read_plan(extras).spacing_mm == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    "junk", [None, 3, "text", [], [1.5], {}, {"x": [None]}, [[0, 1, 1]], ["a"]]
)
def test_nothing_is_taken_for_granted(junk: Any) -> None:
    empty = NnunetPlan()
    assert read_plan({"init_args": junk}) == empty
    assert read_plan({"init_args": {"plans": junk, "configuration": junk}}) == empty
    assert read_plan({"nnssl_adaptation_plan": junk}) == empty
    adaptation = {"architecture_plans": junk, "pretrain_plan": {"configurations": junk}}
    assert read_plan({"nnssl_adaptation_plan": adaptation}) == empty
    plan = nnunet(
        {"spacing": junk, "pool_op_kernel_sizes": junk, "architecture": junk},
        transpose_forward=junk,
    )
    assert plan.strides is None
    assert plan.preprocessing(1) is None
    assert not plan.is_transposed
