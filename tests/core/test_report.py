import pytest
from pydantic import ValidationError

from voxlift.core.report import LoadReport, group_by_reason


def report(**fields: object) -> LoadReport:
    values = {"source": "tiny", "sha256": "ab" * 32, "coverage": 0.998, "num_parameters": 33160000}
    return LoadReport.model_validate(values | fields)


def test_the_summary_says_all_that_matters() -> None:
    text = report(
        exact=("a", "b"),
        adapted={"conv1.weight": "3 input channels summed into one"},
        skipped={"layer4.weight": "named by the caller"},
        ignored={"head.weight": "other classes"},
        geometry={"stem_stride": "(1, 2, 2) in the file, (2, 2, 2) in the model"},
        preprocessing={"unit": "0-255 in the file, HU in the model"},
        architecture={"in_channels": "3 in the file, 1 in the model"},
        licence="CC0",
        notes=("stored in half precision",),
    ).summary()
    assert text.splitlines() == [
        "tiny (sha256 abababababab): 99.8% of the backbone's 33,160,000 parameters loaded.",
        "  exact: 2 tensors",
        "  adapted: conv1.weight (3 input channels summed into one)",
        "  skipped: layer4.weight (named by the caller)",
        "  ignored: head.weight (other classes)",
        "  architecture differs: in_channels: 3 in the file, 1 in the model",
        "  geometry differs: stem_stride: (1, 2, 2) in the file, (2, 2, 2) in the model",
        "  preprocessing differs: unit: 0-255 in the file, HU in the model",
        "  note: stored in half precision",
        "  licence: CC0",
    ]


def test_str_is_the_summary() -> None:
    assert str(report()) == report().summary()
    assert "licence: not stated" in str(report())


@pytest.mark.parametrize("kind", ["missing", "unused"])
def test_it_is_complete_only_with_nothing_missing_or_unused(kind: str) -> None:
    assert report(skipped={"a": "x"}, ignored={"b": "y"}).is_complete
    assert not report(**{kind: {"a": "x"}}).is_complete
    assert f"{kind}: a (x)" in str(report(**{kind: {"a": "x"}}))


def test_names_that_share_a_reason_share_a_line() -> None:
    names = {f"t{i}": "same" for i in range(6)} | {"u": "other"}
    assert group_by_reason(names) == ["t0, t1, t2, t3 and 2 more (same)", "u (other)"]
    assert group_by_reason({}) == []


def test_it_is_frozen_checked_and_becomes_json() -> None:
    with pytest.raises(ValidationError):
        report(coverage=1.2)
    with pytest.raises(ValidationError):
        report().coverage = 1.0
    assert LoadReport.model_validate_json(report().model_dump_json()) == report()
