from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from voxlift.core.errors import WeightsError
from voxlift.weights.match import ChannelRule, adapt_channels, match_tensors


def state(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    return {name.replace("__", "."): torch.rand(shape) for name, shape in shapes.items()}


BACKBONE = {"conv1__weight": (4, 1, 3, 3, 3), "norm1__weight": (4,), "layer1__weight": (4, 4)}


def test_equal_names_and_shapes_are_exact() -> None:
    source, target = state(**BACKBONE), state(**BACKBONE)
    match = match_tensors(source, target)
    assert match.exact == list(target)
    assert match.tensors.keys() == target.keys()
    assert all(torch.equal(match.tensors[name], source[name]) for name in target)
    leftovers = (match.adapted, match.skipped, match.ignored, match.missing, match.unused)
    assert not any(leftovers)


def test_the_target_is_not_touched() -> None:
    target = state(**BACKBONE)
    before = {name: tensor.clone() for name, tensor in target.items()}
    match_tensors(state(**BACKBONE), target, skip=["conv1"])
    assert all(torch.equal(target[name], before[name]) for name in target)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_change_of_precision_counts_as_exact(dtype: torch.dtype) -> None:
    source = {name: tensor.to(dtype) for name, tensor in state(**BACKBONE).items()}
    match = match_tensors(source, state(**BACKBONE))
    assert len(match.exact) == 3
    for name, tensor in match.tensors.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, source[name].float())


def test_numbers_that_the_model_cannot_hold_do_not_fit() -> None:
    target = {"a": torch.zeros(2, dtype=torch.float16)}
    match = match_tensors({"a": torch.full((2,), 1e5)}, target)
    assert "too large for torch.float16" in match.missing["a"]
    assert not match.tensors


def test_another_kind_of_number_does_not_fit() -> None:
    match = match_tensors({"a": torch.zeros(2)}, {"a": torch.zeros(2, dtype=torch.int64)})
    assert match.missing == {"a": "torch.float32 in the file, torch.int64 in the model"}


def test_what_has_no_counterpart_is_missing_or_unused() -> None:
    source = state(norm1__weight=(5,), old=(2,))
    target = state(norm1__weight=(4,), new=(2,))
    match = match_tensors(source, target)
    assert match.missing == {
        "norm1.weight": "shape (5,) in the file, (4,) in the model",
        "new": "not in the file",
    }
    assert match.unused == {"old": "the model has no such tensor"}
    assert not match.tensors


def test_batch_counters_are_tolerated_both_ways() -> None:
    counter = {"norm1.num_batches_tracked": torch.tensor(9)}
    match = match_tensors({}, counter)
    assert "set to 0" in match.adapted["norm1.num_batches_tracked"]
    assert int(match.tensors["norm1.num_batches_tracked"]) == 0
    match = match_tensors(counter, {})
    assert match.ignored.keys() == counter.keys()
    assert not match.unused
    match = match_tensors(counter, {"norm1.num_batches_tracked": torch.tensor(0)})
    assert match.exact == ["norm1.num_batches_tracked"]
    assert int(match.tensors["norm1.num_batches_tracked"]) == 9


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize("own", ["", "backbone."])
def test_the_prefix_of_file_and_model_does_not_matter(prefix: str, own: str) -> None:
    source = {own + name: tensor for name, tensor in state(**BACKBONE).items()}
    target = {prefix + name: tensor for name, tensor in state(**BACKBONE).items()}
    match = match_tensors(source, target, prefix=prefix)
    assert match.exact == list(target)
    for name, tensor in match.tensors.items():
        assert torch.equal(tensor, source[own + name.removeprefix(prefix)])


def classifier(num_classes: int) -> dict[str, Tensor]:
    tensors = {f"backbone.{name}": tensor for name, tensor in state(**BACKBONE).items()}
    return tensors | {"head.weight": torch.rand(num_classes, 4), "head.bias": torch.rand(2)}


def test_the_same_head_is_taken() -> None:
    source, target = classifier(3), classifier(3)
    match = match_tensors(source, target, prefix="backbone.")
    assert set(match.exact) == set(target)
    assert torch.equal(match.tensors["head.weight"], source["head.weight"])


def test_another_head_is_left_as_a_whole() -> None:
    match = match_tensors(classifier(5), classifier(3), prefix="backbone.")
    assert match.ignored == {
        "head.weight": "head left as it is: (5, 4) in the file, (3, 4) in the model",
        "head.bias": "head left as it is: other parts of it do not fit",
    }
    assert not match.missing
    assert not any(name.startswith("head") for name in match.tensors)


def test_a_head_that_only_one_side_has_is_ignored() -> None:
    match = match_tensors(classifier(3), state(**BACKBONE))
    assert match.ignored.keys() == {"head.weight", "head.bias"}
    assert len(match.exact) == 3
    match = match_tensors(state(**BACKBONE), classifier(3), prefix="backbone.")
    assert set(match.ignored.values()) == {"head left as it is: the file has none such"}
    assert match.ignored.keys() == {"head.weight", "head.bias"}


def test_a_head_can_be_required_or_declined() -> None:
    match = match_tensors(classifier(3), classifier(3), prefix="backbone.", head="none")
    assert set(match.ignored.values()) == {"head left as it is, as asked"}
    assert len(match.exact) == 3
    match = match_tensors(classifier(5), classifier(3), prefix="backbone.", head="required")
    assert match.missing.keys() == {"head.weight", "head.bias"}
    match = match_tensors(state(**BACKBONE), classifier(3), prefix="backbone.", head="required")
    assert match.missing.keys() == {"head.weight", "head.bias"}
    match = match_tensors(classifier(3), state(**BACKBONE), head="required")
    assert match.unused.keys() == {"head.weight", "head.bias"}
    match = match_tensors(classifier(3), classifier(3), prefix="backbone.", head="required")
    assert not match.missing
    assert "head.bias" in match.exact


@pytest.mark.parametrize("entry", ["layer1", "layer1.weight", "backbone.layer1"])
def test_a_module_or_a_tensor_is_skipped(entry: str) -> None:
    match = match_tensors(classifier(3), classifier(3), prefix="backbone.", skip=(entry,))
    assert match.skipped == {"backbone.layer1.weight": "named by the caller"}
    assert "backbone.layer1.weight" not in match.tensors
    assert not match.missing
    assert not match.unused


def test_skip_takes_whole_names_only() -> None:
    tensors = state(layer1__weight=(2,), layer10__weight=(2,))
    assert match_tensors(tensors, tensors, skip=["layer1"]).exact == ["layer10.weight"]
    assert match_tensors(tensors, tensors, skip="layer1").exact == ["layer10.weight"]


def test_skip_covers_what_one_side_lacks() -> None:
    match = match_tensors(
        state(a=(2,), old=(3,)), state(a=(3,), new=(3,)), skip=["a", "old", "new"]
    )
    assert match.skipped.keys() == {"a", "old", "new"}
    assert not match.missing
    assert not match.unused


def test_skip_with_a_name_of_nothing_is_an_error() -> None:
    with pytest.raises(WeightsError, match=r"'layer9'.*conv1, norm1, layer1"):
        match_tensors(state(**BACKBONE), state(**BACKBONE), skip=["layer9"])


def test_coverage_is_the_share_of_the_named_parameters() -> None:
    target = state(**BACKBONE)
    match = match_tensors(state(**BACKBONE), target, skip=["layer1"])
    numbers = {"conv1.weight": 108, "norm1.weight": 4, "layer1.weight": 16}
    assert match.coverage(target, list(numbers)) == pytest.approx(112 / 128)
    assert match.coverage(target, ["norm1.weight"]) == 1
    assert match.coverage(target, []) == 0


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_summed_channels_keep_the_function_on_grey_input(channels: int) -> None:
    kernel = torch.randn(4, channels, 3, 3, 3, dtype=torch.float64)
    adapted = adapt_channels(kernel, 1)
    assert adapted is not None
    assert adapted[1] == f"{channels} input channels summed into one"
    grey = torch.randn(2, 1, 5, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(
        nn.functional.conv3d(grey, adapted[0]),
        nn.functional.conv3d(grey.expand(-1, channels, -1, -1, -1), kernel),
    )


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_averaged_channels_divide_the_response_to_grey_input(channels: int) -> None:
    kernel = torch.randn(4, channels, 3, 3, 3, dtype=torch.float64)
    adapted = adapt_channels(kernel, 1, rule="mean")
    assert adapted is not None
    assert adapted[1] == f"{channels} input channels averaged into one"
    grey = torch.randn(2, 1, 5, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(
        nn.functional.conv3d(grey, adapted[0]),
        nn.functional.conv3d(grey.expand(-1, channels, -1, -1, -1), kernel) / channels,
    )


@pytest.mark.parametrize("channels", [2, 4])
def test_a_shared_out_channel_keeps_the_function_on_equal_channels(channels: int) -> None:
    kernel = torch.randn(4, 1, 3, 3, dtype=torch.float64)
    adapted = adapt_channels(kernel, channels)
    assert adapted is not None
    assert "shared out evenly" in adapted[1]
    grey = torch.randn(2, 1, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(
        nn.functional.conv2d(grey.expand(-1, channels, -1, -1), adapted[0]),
        nn.functional.conv2d(grey, kernel),
    )


@pytest.mark.parametrize("rule", ["sum", "mean"])
@pytest.mark.parametrize(("found", "wanted"), [(3, 1), (1, 3)])
def test_a_matched_stem_convolves_as_is_said(found: int, wanted: int, rule: ChannelRule) -> None:
    theirs = nn.Conv3d(found, 4, 3, padding=1).double()
    ours = nn.Conv3d(wanted, 4, 3, padding=1).double()
    match = match_tensors(
        {f"conv1.{name}": tensor for name, tensor in theirs.state_dict().items()},
        {f"conv1.{name}": tensor for name, tensor in ours.state_dict().items()},
        channels=rule,
    )
    kernel = match.tensors["conv1.weight"]
    grey = torch.randn(2, 1, 5, 6, 7, dtype=torch.float64)
    expected = nn.functional.conv3d(grey.expand(-1, found, -1, -1, -1), theirs.weight, padding=1)
    computed = nn.functional.conv3d(grey.expand(-1, wanted, -1, -1, -1), kernel, padding=1)
    share = found if rule == "mean" and wanted == 1 else 1
    # Kernels of other channels are made in single precision.
    torch.testing.assert_close(computed, expected / share, rtol=1e-5, atol=1e-6)
    assert torch.equal(match.tensors["conv1.bias"], theirs.state_dict()["bias"])


def test_channels_are_adapted_at_the_input_alone() -> None:
    source = state(conv1__weight=(4, 3, 3, 3, 3), layer1__weight=(4, 3, 3, 3, 3))
    target = state(conv1__weight=(4, 1, 3, 3, 3), layer1__weight=(4, 1, 3, 3, 3))
    match = match_tensors(source, target)
    assert match.adapted == {"conv1.weight": "3 input channels summed into one"}
    torch.testing.assert_close(
        match.tensors["conv1.weight"], source["conv1.weight"].sum(1, keepdim=True)
    )
    assert match.missing.keys() == {"layer1.weight"}


@pytest.mark.parametrize(
    "shape",
    [(4, 2, 3, 3, 3), (5, 1, 3, 3, 3), (4, 1, 5, 5, 5), (4, 1, 3, 3), (4,)],
)
def test_other_differences_at_the_input_do_not_fit(shape: tuple[int, ...]) -> None:
    match = match_tensors(state(conv1__weight=shape), state(conv1__weight=(4, 3, 3, 3, 3)))
    assert match.missing.keys() == {"conv1.weight"}


def test_a_half_precision_stem_is_summed_in_full_precision() -> None:
    source = {"conv1.weight": torch.full((1, 3, 1, 1, 1), 1 / 3).half()}
    match = match_tensors(source, {"conv1.weight": torch.zeros(1, 1, 1, 1, 1)})
    exact = 3 * float(torch.tensor(1 / 3).half())
    assert float(match.tensors["conv1.weight"]) == pytest.approx(exact, abs=1e-7)


def test_a_backbone_may_make_what_does_not_fit() -> None:
    def adapter(name: str, wanted: Tensor, file: Mapping[str, Tensor]) -> tuple[Tensor, str] | None:
        asked.append((name, sorted(file)))
        return (torch.ones_like(wanted), "made anew") if name != "c" else None

    asked: list[tuple[str, list[str]]] = []
    target = {"backbone.a": torch.zeros(2), "backbone.b": torch.zeros(2), "head.d": torch.zeros(2)}
    target["backbone.c"] = torch.zeros(2)
    source = {"backbone.a": torch.ones(2), "backbone.b": torch.ones(3)}
    match = match_tensors(source, target, prefix="backbone.", adapter=adapter)
    assert asked == [("b", ["a", "b"]), ("c", ["a", "b"])]
    assert match.exact == ["backbone.a"]
    assert match.adapted == {"backbone.b": "made anew"}
    assert match.missing == {"backbone.c": "not in the file"}
    assert match.tensors["backbone.b"].tolist() == [1, 1]


def test_counters_that_were_cast_with_the_rest_are_taken() -> None:
    source = {"norm1.num_batches_tracked": torch.tensor(7.0, dtype=torch.float16)}
    match = match_tensors(source, {"norm1.num_batches_tracked": torch.tensor(0)})
    assert match.tensors["norm1.num_batches_tracked"].item() == 7
    assert match.tensors["norm1.num_batches_tracked"].dtype == torch.int64
    assert not match.missing
