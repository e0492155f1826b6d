from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxlift.core.errors import DataError
from voxlift.lifting.image_to_volume import lift

DTYPES = [
    torch.uint8,
    torch.int16,
    torch.int64,
    torch.bool,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.float8_e4m3fn,
]


def images(*shape: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel()).remainder(251).reshape(shape).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nothing_is_copied(dtype: torch.dtype) -> None:
    photographs = images(2, 3, 4, 5, dtype=dtype)
    volumes = lift(photographs)
    assert volumes.shape == (2, 1, 3, 4, 5)
    assert volumes.dtype == dtype
    assert volumes.data_ptr() == photographs.data_ptr()
    assert torch.equal(volumes[:, 0].to(torch.float64), photographs.to(torch.float64))


def test_channels_last_images_are_not_copied_either() -> None:
    photographs = images(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert lift(photographs).data_ptr() == photographs.data_ptr()


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (2, 4, 4, 4), (3, 4, 4), (2, 1, 3, 4, 4), (3,)])
def test_anything_but_three_channels_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"found the shape .*alpha channel"):
        lift(images(*shape))


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != torch.float8_e4m3fn], ids=str)
def test_shuffle_permutes_the_slices_of_each_image(dtype: torch.dtype) -> None:
    photographs = images(16, 3, 2, 2, dtype=dtype)
    volumes = lift(photographs, shuffle=True, generator=torch.Generator().manual_seed(0))
    assert volumes.shape == (16, 1, 3, 2, 2)
    assert volumes.dtype == dtype
    for before, after in zip(photographs, volumes[:, 0], strict=True):
        # As sets of slices they are alike.
        assert Counter(str(s.tolist()) for s in before) == Counter(str(s.tolist()) for s in after)


def test_every_order_is_as_likely() -> None:
    photographs = torch.arange(3).repeat(6000, 1)[..., None, None]
    volumes = lift(photographs, shuffle=True, generator=torch.Generator().manual_seed(0))
    counts = Counter(tuple(order) for order in volumes[:, 0, :, 0, 0].tolist())
    assert len(counts) == 6
    # Chi-squared with 5 degrees of freedom exceeds 20.5 once in a thousand times.
    assert sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 20.5


@settings(max_examples=20)
@given(st.integers(0, 2**63 - 1), st.integers(1, 20))
def test_the_order_of_an_image_depends_on_the_generator_alone(seed: int, batch: int) -> None:
    photographs = images(batch, 3, 1, 1)
    first = lift(photographs, shuffle=True, generator=torch.Generator().manual_seed(seed))
    torch.rand(3)
    again = lift(photographs, shuffle=True, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(first, again)
    # The first images keep their order when more follow.
    fewer = photographs[: batch // 2 + 1]
    part = lift(fewer, shuffle=True, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(part, first[: len(fewer)])


def test_without_a_generator_torch_decides() -> None:
    photographs = images(64, 3, 1, 1)
    torch.manual_seed(5)
    first = lift(photographs, shuffle=True)
    assert not torch.equal(first, lift(photographs, shuffle=True))
    torch.manual_seed(5)
    assert torch.equal(first, lift(photographs, shuffle=True))


def test_the_gradient_goes_back_to_each_channel() -> None:
    photographs = torch.zeros(4, 3, 1, 1, requires_grad=True)
    weight = torch.tensor([1.0, 2.0, 3.0])[None, None, :, None, None]
    generator = torch.Generator().manual_seed(1)
    (lift(photographs, shuffle=True, generator=generator) * weight).sum().backward()  # type: ignore[no-untyped-call]
    assert photographs.grad is not None
    assert photographs.grad.flatten(1).sort(dim=1).values.tolist() == [[1.0, 2.0, 3.0]] * 4
