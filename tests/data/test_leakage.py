"""Equal scans share a group, and are never in two splits."""

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.data.leakage import Identity, find_earlier_copies, hash_voxels, join_groups


def identity(name: str, content: str | None, split: str | None = None, group: str = "") -> Identity:
    return Identity(name, group or name, split, content, answer=0)


def test_equal_voxels_hash_alike_whatever_their_type() -> None:
    scan = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    assert hash_voxels([scan]) == hash_voxels([scan.astype(np.float64)])
    different = [[scan + 1], [scan.reshape(3, 2, 4)], [scan, scan], [scan, scan + 1]]
    assert len({hash_voxels(arrays) for arrays in [[scan], *different]}) == 5


def test_large_scans_are_hashed_to_their_end() -> None:
    scan = np.zeros((3, 700, 700), dtype=np.int16)
    scan[0, 0, 0] = 1
    other = scan.copy()
    other[-1, -1, -1] = 1
    assert hash_voxels([scan]) == hash_voxels([np.asfortranarray(scan)])
    assert hash_voxels([scan]) != hash_voxels([other])


def test_blank_scans_are_not_compared() -> None:
    assert hash_voxels([np.full((2, 2, 2), 7), np.zeros((2, 2, 2))]) is None
    assert hash_voxels([np.zeros((2, 2, 2)), np.arange(8).reshape(2, 2, 2)]) is not None


def test_the_copies_in_the_last_split_stay() -> None:
    cases = [
        identity("a", "x", "train"),
        identity("b", "x", "test"),
        identity("c", "y", "train"),
        identity("d", "y", "train"),
        identity("e", None, "train"),
        identity("f", None, "val"),
    ]
    assert find_earlier_copies(cases) == [True, False, False, False, False, False]


def test_groups_of_equal_scans_are_joined_through_others() -> None:
    cases = [
        identity("1", "x", group="a"),
        identity("2", "y", group="b"),
        identity("3", "x", group="c"),
        identity("4", "y", group="a"),
        identity("5", "z", group="d"),
    ]
    groups = join_groups("set", cases, answers="masks")
    assert len(set(groups[:4])) == 1
    assert groups[4] == "d"


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        (identity("b", "x", "test"), "hold the same voxels"),
        (identity("b", "y", "test", group="a"), "belong to the same group"),
    ],
)
def test_two_splits_are_refused_without_naming_the_group(others: Identity, reason: str) -> None:
    cases = [identity("case 1", "x", "train", group="a"), others]
    with pytest.raises(
        DataError, match=rf"set: case 1 of split 'train' and b .*{reason}"
    ) as caught:
        join_groups("set", cases, answers="masks")
    assert "'a'" not in str(caught.value)
