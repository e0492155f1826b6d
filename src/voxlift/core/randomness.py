"""Random numbers that depend on what they are for, never on when or where they are drawn.

Every random choice in Voxlift comes from a generator made for it out of the run's seed and the
identity of the thing: `numpy_generator(seed, "augment", epoch, index)`. Worker processes, resumed
runs and reordered loops therefore draw the same numbers.
"""

import hashlib

import numpy as np
import torch


def derive_seed(seed: int, *identity: str | int) -> int:
    """Mix a seed and the identity of its use into a new seed of 63 bits.

    Args:
        seed: The run's seed.
        identity: What the numbers are for, such as `"augment", epoch, index`.
    """
    text = "\x1f".join(str(part) for part in (seed, *identity))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def numpy_generator(seed: int, *identity: str | int) -> np.random.Generator:
    """Make a NumPy generator for one use of the run's seed."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, *identity)))


def torch_generator(seed: int, *identity: str | int) -> torch.Generator:
    """Make a CPU torch generator for one use of the run's seed."""
    return torch.Generator().manual_seed(derive_seed(seed, *identity))
