from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from voxlift.data.ct_windows import CT_WINDOWS_HU
from voxlift.data.volume import Volume
from voxlift.figures.candidates import ShownCandidate
from voxlift.inference import candidate_overview
from voxlift.inference.candidate_overview import window_name, write_candidate_overview
from voxlift.inference.candidate_places import place_candidates
from voxlift.inference.candidates import Candidate, CandidateSlice

NAMES = ("lung", "liver")


def candidate(position: float = 1.0, score: float = 0.5) -> Candidate:
    part = CandidateSlice(position, (8.0, 10.0, 14.0, 16.0), score)
    depths = (position, position + 1)
    return Candidate(score, 1, part.box, position, depths, (part,))


def test_the_picture_has_the_places_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def plot(image: npt.NDArray[Any], shown: list[ShownCandidate], path: Path, **more: Any) -> None:
        asked.update(image=image, shown=shown, path=path, **more)

    monkeypatch.setattr(candidate_overview, "plot_candidates", plot)
    array = np.arange(5 * 20 * 30, dtype=np.float32).reshape(5, 20, 30)
    # From head to foot.
    volume = Volume(array, (3.0, 1.0, 0.5), direction=np.diag([1.0, 1.0, -1.0]))
    candidates = [candidate(1.0, 0.9 - number / 100) for number in range(14)]
    write_candidate_overview(
        tmp_path / "a.png",
        candidates,
        place_candidates(candidates, volume=volume, class_names=NAMES),
        volume=volume,
        is_ct=False,
        num_found=20,
        title="a",
    )
    np.testing.assert_array_equal(asked["image"], array[::-1])
    assert (asked["spacing_mm"], asked["num_found"], asked["title"]) == ((3.0, 1.0, 0.5), 20, "a")
    assert len(asked["shown"]) == 12
    first = asked["shown"][0]
    # Canonical slice 1 is the last but one of five in the file: number 4.
    assert (first.slice_axis, first.slice_number, first.num_stored) == ("slice", 4, 5)
    assert (first.rank, first.class_name, first.score) == (1, "liver", 0.9)
    assert (first.box, first.position) == (candidates[0].box, 1.0)
    assert first.centre_mm == (5.25, 12.5, -9.0)
    assert first.window is None


def test_ct_is_shown_in_the_window_of_what_a_candidate_lies_in(tmp_path: Path) -> None:
    array = np.full((5, 20, 30), 40.0)
    assert window_name(array, candidate()) == "abdomen"
    array[1] = -850
    array[1, 10:16, 8:14] = 30
    assert window_name(array, candidate()) == "lung"
    # Air about the skin is no lung.
    array[1, :10] = -1000
    array[1, 10:] = 40
    assert window_name(array, candidate()) == "abdomen"
    array[2, 10:16, 8:12] = 600
    assert window_name(array, candidate(2.0)) == "bone"
    beyond = Candidate(0.5, 0, (29.5, 19.5, 33.0, 24.0), 4.0, (4.0, 5.0), ())
    assert window_name(array, beyond) == "abdomen"

    volume = Volume(array)
    path = tmp_path / "a.png"
    write_candidate_overview(
        path,
        [candidate(2.0)],
        place_candidates([candidate(2.0)], volume=volume, class_names=NAMES),
        volume=volume,
        is_ct=True,
    )
    assert path.stat().st_size > 1000
    assert CT_WINDOWS_HU["bone"][1] > 1000
