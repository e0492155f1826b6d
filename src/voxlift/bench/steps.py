"""What one call of a network contestant does: a training step, or a forward pass."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.errors import VoxliftError
from voxlift.core.randomness import torch_generator
from voxlift.lifting.image_to_volume import lift
from voxlift.tasks.pretrain import normalize


class PhotographBatch:
    """Random photographs with labels, on the device and as a loader would deliver them.

    Args:
        batch_size: Number of photographs.
        size: Edge in pixels.
        num_classes: Number of classes.
        device: Where they are.
    """

    def __init__(self, *, batch_size: int, size: int, num_classes: int, device: str) -> None:
        generator = torch_generator(0, "bench")
        images = torch.randint(
            0, 256, (batch_size, 3, size, size), generator=generator, dtype=torch.uint8
        )
        labels = torch.randint(0, num_classes, (batch_size,), generator=generator)
        self.images = images.to(device)
        self.labels = labels.to(device)
        self.device = device


class TrainStep:
    """Lift a batch, compute the loss and its gradients, and move the weights.

    Args:
        network: The network, in training mode.
        optimizer: Holds the network's parameters.
        batch: The photographs.
        bf16: Compute in bf16 (mixed precision).
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch: PhotographBatch,
        *,
        bf16: bool,
    ) -> None:
        self.network = network.train()
        self.optimizer = optimizer
        self.batch = batch
        self.bf16 = bf16

    def __call__(self) -> None:
        """Do one step."""
        self.optimizer.zero_grad()
        with torch.autocast(self.batch.device, torch.bfloat16, enabled=self.bf16):
            logits = self.network(lift(normalize(self.batch.images)))
            loss = functional.cross_entropy(logits, self.batch.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def check(self) -> None:
        """Do a step and see that it trains: a step that ends in NaN is fast for nothing.

        Raises:
            VoxliftError: If a gradient is not finite.
        """
        self()
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        if not all(torch.isfinite(gradient).all() for gradient in gradients):
            raise VoxliftError(
                f"A training step on {self.batch.device} gave gradients that are NaN or infinite, "
                "so its speed means nothing. Try another version of torch."
            )


class ForwardPass:
    """Lift a batch and compute its logits, without gradients.

    Args:
        network: The network, in evaluation mode.
        batch: The photographs.
        bf16: Compute in bf16 (mixed precision).
    """

    def __init__(self, network: nn.Module, batch: PhotographBatch, *, bf16: bool) -> None:
        self.network = network.eval()
        self.batch = batch
        self.bf16 = bf16

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """Compute the logits."""
        with torch.autocast(self.batch.device, torch.bfloat16, enabled=self.bf16):
            logits: Tensor = self.network(lift(normalize(self.batch.images)))
            return logits

    def check(self) -> None:
        """Compute the logits and see that they are numbers.

        Raises:
            VoxliftError: If one is not finite.
        """
        if not torch.isfinite(self()).all():
            raise VoxliftError(
                f"A forward pass on {self.batch.device} gave NaN or infinity, so its speed means "
                "nothing. Try another version of torch."
            )
