import copy

import pytest
import torch
from torch.nn import functional

from voxlift.bench.networks import our_network
from voxlift.bench.steps import ForwardPass, PhotographBatch, TrainStep
from voxlift.core.errors import VoxliftError


def small_batch() -> PhotographBatch:
    return PhotographBatch(batch_size=2, size=32, num_classes=5, device="cpu")


def test_a_batch_is_what_a_loader_delivers() -> None:
    batch = small_batch()
    assert batch.images.shape == (2, 3, 32, 32)
    assert batch.images.dtype == torch.uint8
    assert batch.labels.max() < 5
    assert torch.equal(batch.images, small_batch().images)


def test_a_training_step_is_one_step_of_gradient_descent() -> None:
    network = our_network(width=4, num_classes=5)
    expected = copy.deepcopy(network)
    batch = small_batch()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    TrainStep(network, optimizer, batch, bf16=False)()

    volumes = ((batch.images.double() - 114.495) / 57.63).float()[:, None]
    loss = functional.cross_entropy(expected.train()(volumes), batch.labels)
    loss.backward()  # type: ignore[no-untyped-call]
    for parameter, before in zip(network.parameters(), expected.parameters(), strict=True):
        assert before.grad is not None
        torch.testing.assert_close(parameter, before - 0.1 * before.grad, rtol=1e-3, atol=1e-4)


def test_a_forward_pass_computes_logits_in_the_precision_asked_for() -> None:
    network = our_network(width=4, num_classes=5)
    plain = ForwardPass(network, small_batch(), bf16=False)()
    half = ForwardPass(network, small_batch(), bf16=True)()
    assert (plain.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    assert not plain.requires_grad
    torch.testing.assert_close(plain, half.float(), rtol=0.1, atol=0.02)


def test_numbers_that_are_none_are_an_error() -> None:
    network = our_network(width=4, num_classes=5)
    with torch.no_grad():
        network.head.weight[0, 0] = torch.nan
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with pytest.raises(VoxliftError, match="its speed means nothing"):
        ForwardPass(network, small_batch(), bf16=False).check()
    with pytest.raises(VoxliftError, match="its speed means nothing"):
        TrainStep(network, optimizer, small_batch(), bf16=False).check()
