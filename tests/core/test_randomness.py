import numpy as np
import torch

from voxlift.core.randomness import derive_seed, numpy_generator, torch_generator


def test_seeds_depend_on_every_part_of_the_identity() -> None:
    identities: list[tuple[str | int, ...]] = [(), ("a",), ("a", 1), ("a", 11), ("a1",), (1, "a")]
    seeds = {derive_seed(seed, *identity) for seed in (0, 1) for identity in identities}
    assert len(seeds) == 2 * len(identities)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_neighbouring_parts_do_not_run_together() -> None:
    assert derive_seed(0, 1, 23) != derive_seed(0, 12, 3)
    assert derive_seed(1, 2) != derive_seed(12)


def test_seeds_are_the_same_in_every_process_and_version() -> None:
    # By `printf '5\x1faugment\x1f2\x1f7' | b2sum -l 64`, without its last bit.
    assert derive_seed(5, "augment", 2, 7) == 0xE73364865A9CA028 >> 1


def test_generators_repeat_and_do_not_touch_the_global_ones() -> None:
    numpy_state, torch_state = np.random.get_state(legacy=False), torch.get_rng_state()
    first = numpy_generator(1, "x", 2).random(4)
    np.testing.assert_array_equal(first, numpy_generator(1, "x", 2).random(4))
    second = torch.rand(4, generator=torch_generator(1, "x", 2))
    torch.testing.assert_close(second, torch.rand(4, generator=torch_generator(1, "x", 2)))
    assert not torch.equal(second, torch.rand(4, generator=torch_generator(1, "x", 3)))
    np.testing.assert_equal(np.random.get_state(legacy=False), numpy_state)
    assert torch.equal(torch.get_rng_state(), torch_state)
