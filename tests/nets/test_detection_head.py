import torch

from voxlift.nets.detection_head import lies_on


def test_a_box_lies_on_a_region_by_more_than_half_of_its_own_area() -> None:
    regions = torch.tensor([[0.0, 0, 10, 10], [20, 20, 24, 24]])
    boxes = torch.tensor(
        [
            [0.0, 0, 100, 100],  # Holds both, and lies on neither.
            [2, 2, 4, 4],
            [5, 0, 15, 10],  # By just half.
            [4, 0, 14, 10],
            [10, 10, 20, 20],  # Between them.
            [19, 19, 24, 24],
            [30, 30, 31, 31],
        ]
    )
    assert lies_on(boxes, regions).tolist() == [False, True, False, True, False, True, False]
    assert not lies_on(boxes, regions[:0]).any()
    assert lies_on(boxes[:0], regions).shape == (0,)


def test_it_agrees_with_counting_pixels() -> None:
    def box() -> list[int]:
        x, y, width, height = torch.randint(1, 9, (4,)).tolist()
        return [x, y, x + width, y + height]

    boxes, regions = [box() for _ in range(40)], [box() for _ in range(3)]
    expected = []
    for x1, y1, x2, y2 in boxes:
        pixels = [(x, y) for x in range(x1, x2) for y in range(y1, y2)]
        on = [sum(a <= x < c and b <= y < d for x, y in pixels) for a, b, c, d in regions]
        expected.append(max(on) > len(pixels) / 2)
    assert 0 < sum(expected) < 40
    assert lies_on(torch.tensor(boxes).float(), torch.tensor(regions).float()).tolist() == expected
