import pytest

from voxlift.core.architecture import Architecture
from voxlift.core.report import LoadReport
from voxlift.weights.diagnosis import field_differences, likely_cause, nearest_names, refusal


def report(**fields: object) -> LoadReport:
    values = {"source": "a.safetensors", "sha256": "0" * 64, "coverage": 1.0, "num_parameters": 100}
    return LoadReport.model_validate(values | fields)


def test_descriptions_are_compared_field_by_field() -> None:
    ours = Architecture(name="resnet18", width=16)
    assert field_differences(ours, ours) == {}
    assert field_differences(Architecture(name="resnet10"), ours) == {
        "name": "resnet10 in the file, resnet18 in the model",
        "width": "64 in the file, 16 in the model",
    }


def test_what_fits_is_not_refused() -> None:
    assert refusal(report(exact=("a",)), min_coverage=0.9) is None
    assert refusal(report(coverage=0.9, skipped={"b": "x"}), min_coverage=0.9) is None
    assert refusal(report(ignored={"head.weight": "x"}), min_coverage=1.0) is None


def test_too_small_a_share_is_refused_with_the_number_that_would_do() -> None:
    low = report(coverage=0.2499, skipped={"layer4.weight": "named by the caller"})
    text = refusal(low, min_coverage=0.9)
    assert text is not None
    assert "25.0% of the backbone's 100 parameters (at least 90.0% wanted)" in text
    assert "more of the backbone was skipped" in text
    assert "min_coverage=0.24" in text
    assert refusal(low, min_coverage=0.24) is None


@pytest.mark.parametrize("kind", ["missing", "unused"])
def test_one_tensor_amiss_is_refused_and_can_be_skipped(kind: str) -> None:
    text = refusal(report(exact=("b",), **{kind: {"norm1.bias": "why"}}), min_coverage=0.9)
    assert text is not None
    assert f"{kind}: norm1.bias (why)" in text
    assert "skip=('norm1.bias',)" in text
    assert "min_coverage=" not in text


def test_long_lists_are_cut() -> None:
    text = refusal(
        report(missing={f"t{i}": f"reason {i % 20}" for i in range(400)}), min_coverage=0.9
    )
    assert text is not None
    assert "and 16 more (reason 0)" in text
    assert "for 15 other reasons" in text
    assert "skip=(NAMES" in text
    assert len(text.splitlines()) < 12


def test_the_nearest_names_are_shown() -> None:
    missing = dict.fromkeys(["layer1.0.norm1.weight", "layer2.0.norm1.weight"], "not in the file")
    unused = dict.fromkeys(["layer1.0.bn1.weight", "layer2.0.bn1.weight", "fc"], "x")
    text = refusal(report(exact=("c",), missing=missing, unused=unused), min_coverage=0.9)
    assert text is not None
    for layer in ("layer1", "layer2"):
        pair = f"the model's {layer}.0.norm1.weight and the file's {layer}.0.bn1.weight"
        assert f"nearest: {pair}" in text
    assert nearest_names(["conv1.weight"], ["zzz"]) == []
    assert len(nearest_names([f"layer{i}" for i in range(50)], ["layer"])) == 6


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        (
            {"architecture": {"width": "8 in the file, 16 in the model"}, "missing": {"a": "x"}},
            "another network (width is 8 in the file, 16 in the model)",
        ),
        (
            {
                "architecture": {"in_channels": "2 in the file, 3 in the model"},
                "missing": {"backbone.conv1.weight": "shape (4, 2, 3, 3, 3) in the file"},
                "exact": ("a",),
            },
            "the input channels differ (2 in the file, 3 in the model)",
        ),
        ({"missing": {"head.weight": "head left as it is"}, "exact": ("a",)}, "head='same'"),
        (
            {"coverage": 0, "missing": {"a": "x"}, "unused": {"module.a": "x", "module.b": "x"}},
            "begins with 'module.'",
        ),
        (
            {"coverage": 0, "adapted": {"c": "0"}, "unused": {"b": "x", "module.b": "x"}},
            "another family",
        ),
        ({"missing": {"a": "x"}, "exact": ("b",)}, "it was edited, or the model was changed"),
        ({"coverage": 0.1, "exact": ("b",)}, "skipped than min_coverage allows"),
    ],
)
def test_the_likely_cause_is_named(fields: dict[str, object], cause: str) -> None:
    assert cause in likely_cause(report(**fields))


def test_a_file_of_which_nothing_fits_is_not_offered() -> None:
    text = refusal(report(coverage=0, missing={"a": "x"}, unused={"b": "x"}), min_coverage=0.9)
    assert text is not None
    assert "give --weights another start, or scratch: none of these would be used" in text
    assert "In Python" not in text
    assert "skip=" not in text


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        (
            {"missing": {"a": "x"}},
            "give --weights another start, or scratch; parts of one are not left out",
        ),
        (
            {"missing": {"a": "x"}, "architecture": {"width": "4 in the file, 8 in the model"}},
            "leave out --backbone, --width, --stem and --norm, so that the network is the file's",
        ),
    ],
)
def test_there_is_advice_for_the_command_line_and_for_python(
    fields: dict[str, object], advice: str
) -> None:
    text = refusal(report(exact=("b",), **fields), min_coverage=0.9)
    assert text is not None
    assert f"At the command line: {advice}" in text
    assert "In Python, if that is meant: load_weights(..., skip=('a',)) leaves out what" in text
    text = refusal(report(exact=("b",), coverage=0.5, **fields), min_coverage=0.9)
    assert text is not None
    both = "load_weights(..., skip=('a',), min_coverage=0.5) leaves out what does not fit and acc"
    assert both in text
