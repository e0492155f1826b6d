import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from voxlift.core.errors import ConfigError, DataError
from voxlift.data.epoch_order import (
    EpochBatchSampler,
    Pair,
    ResumableLoader,
    sample_uniforms,
)


class Echo:
    """Returns what it was asked for."""

    def __getitem__(self, pair: Pair) -> Pair:
        return pair


class WholeBatches(Echo):
    def __getitems__(self, pairs: list[Pair]) -> tuple[str, list[Pair]]:
        return "whole", pairs


class Damaged:
    def __getitem__(self, pair: Pair) -> Pair:
        if pair[1] == 5:
            raise DataError("photograph 5 is damaged")
        return pair


def unchanged(batch: Any) -> Any:
    return batch


def echo_loader(workers: int = 0, seed: int = 0, **options: Any) -> ResumableLoader[list[Pair]]:
    sampler = EpochBatchSampler(23, batch_size=4, shuffle=True, seed=seed, **options)
    return ResumableLoader(Echo(), sampler, workers=workers, collate_fn=unchanged)


def test_uniforms_depend_on_identity_alone() -> None:
    whole = sample_uniforms(7, epoch=2, indices=np.arange(100), num_draws=5)
    part = sample_uniforms(7, epoch=2, indices=[40, 3], num_draws=3)
    np.testing.assert_array_equal(part, whole[[40, 3], :3])
    for other in (
        sample_uniforms(8, epoch=2, indices=np.arange(100), num_draws=5),
        sample_uniforms(7, epoch=3, indices=np.arange(100), num_draws=5),
        sample_uniforms(7, epoch=2, indices=np.arange(100), num_draws=5, purpose="else"),
    ):
        assert not (other == whole).any()


def test_uniforms_are_uniform_and_independent() -> None:
    numbers = np.concatenate(
        [sample_uniforms(0, epoch=e, indices=np.arange(20_000), num_draws=4) for e in range(5)]
    )
    assert numbers.min() >= 0
    assert numbers.max() < 1
    for column in numbers.T:
        counts = np.histogram(column, bins=50, range=(0, 1))[0]
        chi_squared = float(((counts - 2000) ** 2 / 2000).sum())
        # 49 degrees of freedom: mean 49, and less than 1e-5 of the mass above 110.
        assert chi_squared < 110
    correlations = np.corrcoef(numbers, rowvar=False) - np.eye(4)
    assert np.abs(correlations).max() < 0.015
    neighbours = np.corrcoef(numbers[:-1, 0], numbers[1:, 0])[0, 1]
    assert abs(neighbours) < 0.015


def test_each_epoch_has_every_sample_once_in_its_own_order() -> None:
    loader = echo_loader()
    orders = []
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4, 3]
        assert {pair[0] for batch in batches for pair in batch} == {epoch}
        orders.append([pair[1] for batch in batches for pair in batch])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(23))
    assert orders[0] != orders[1]
    other_seed = [pair[1] for batch in echo_loader(seed=1) for pair in batch]
    assert other_seed != orders[0]
    loader.set_epoch(0)
    assert [pair[1] for batch in loader for pair in batch] == orders[0]


def test_unshuffled_order_and_drop_last() -> None:
    sampler = EpochBatchSampler(10, batch_size=4, shuffle=False, seed=0, drop_last=True)
    assert list(sampler) == [[(0, 0), (0, 1), (0, 2), (0, 3)], [(0, 4), (0, 5), (0, 6), (0, 7)]]
    assert len(sampler) == 2


@pytest.mark.parametrize("drop_last", [False, True])
def test_ranks_share_the_samples(drop_last: bool) -> None:
    samplers = [
        EpochBatchSampler(
            22, batch_size=3, shuffle=True, seed=0, drop_last=drop_last, rank=rank, world_size=4
        )
        for rank in range(4)
    ]
    batches = [list(sampler) for sampler in samplers]
    assert {len(b) for b in batches} == {len(samplers[0])} == {1 if drop_last else 2}
    orders = [sampler.order(0).tolist() for sampler in samplers]
    assert {len(order) for order in orders} == {5 if drop_last else 6}
    seen = [index for order in orders for index in order]
    if drop_last:
        assert len(set(seen)) == 20
    else:
        assert set(seen) == set(range(22))


def test_weights_decide_how_often_a_sample_comes() -> None:
    weights = np.array([0.0, 1.0, 3.0] * 100)
    sampler = EpochBatchSampler(weights, batch_size=300, shuffle=False, seed=0)
    kinds = np.zeros(3)
    for epoch in range(40):
        kinds += np.bincount(sampler.order(epoch) % 3, minlength=3)
    assert kinds[0] == 0
    assert kinds[2] / kinds.sum() == pytest.approx(0.75, abs=0.015)
    assert sampler.order(0).tolist() != sampler.order(1).tolist()


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [1.0, -1.0], [1.0, float("nan")]])
def test_unusable_weights(weights: list[float]) -> None:
    with pytest.raises(DataError):
        EpochBatchSampler(weights, batch_size=1, shuffle=True, seed=0)


def test_unusable_sizes() -> None:
    with pytest.raises(ConfigError, match="--batch-size"):
        EpochBatchSampler(3, batch_size=0, shuffle=True, seed=0)
    with pytest.raises(ConfigError, match="rank is 2 of 2"):
        EpochBatchSampler(3, batch_size=1, shuffle=True, seed=0, rank=2, world_size=2)
    with pytest.raises(DataError, match="empty"):
        EpochBatchSampler(0, batch_size=1, shuffle=True, seed=0)
    with pytest.raises(DataError, match="do not fill one batch of 4"):
        EpochBatchSampler(3, batch_size=4, shuffle=True, seed=0, drop_last=True)
    with pytest.raises(ConfigError, match="--workers"):
        echo_loader(workers=-1)


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_in_mid_epoch(workers: int) -> None:
    loader = echo_loader()
    loader.set_epoch(3)
    whole = list(loader)
    assert loader.state_dict() == {"epoch": 3, "batches": 6}
    iterator = iter(loader)
    for _ in range(2):
        next(iterator)
    state = loader.state_dict()
    assert state == {"epoch": 3, "batches": 2}

    resumed = echo_loader(workers)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert resumed.epoch == 3
    assert len(resumed) == 6
    remaining = iter(resumed)
    assert next(remaining) == whole[2]
    assert resumed.state_dict() == {"epoch": 3, "batches": 3}
    assert list(remaining) == whole[3:]
    # Only once: the next pass is whole again.
    assert list(resumed) == whole


def test_state_of_a_finished_epoch() -> None:
    loader = echo_loader()
    loader.load_state_dict({"epoch": 0, "batches": 6})
    assert list(loader) == []
    loader.load_state_dict({"epoch": 0, "batches": 6})
    loader.set_epoch(1)
    assert len(list(loader)) == 6


def test_state_that_does_not_fit() -> None:
    with pytest.raises(ConfigError, match="7 batches of epoch 1, but an epoch has 6"):
        echo_loader().load_state_dict({"epoch": 1, "batches": 7})


def test_iterator_takes_the_epoch_that_is_set_when_it_begins() -> None:
    loader = echo_loader()
    iterator = iter(loader)
    loader.sampler.set_epoch(4)
    assert next(iterator)[0][0] == 4


def test_loading_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    list(echo_loader())
    list(echo_loader(workers=1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_ours_leaves_a_worker_as_it_is(workers: int) -> None:
    sampler = EpochBatchSampler(8, batch_size=2, shuffle=False, seed=0)
    loader = ResumableLoader(Damaged(), sampler, workers=workers, collate_fn=unchanged)
    iterator = iter(loader)
    assert next(iterator) == [(0, 0), (0, 1)]
    with pytest.raises(DataError) as caught:
        list(iterator)
    assert str(caught.value) == "photograph 5 is damaged"


@pytest.mark.parametrize("workers", [0, 1])
def test_whole_batches_are_asked_for_where_offered(workers: int) -> None:
    sampler = EpochBatchSampler(2, batch_size=2, shuffle=False, seed=0)
    loader: ResumableLoader[tuple[str, list[Pair]]] = ResumableLoader(
        WholeBatches(), sampler, workers=workers, collate_fn=unchanged
    )
    assert list(loader) == [("whole", [(0, 0), (0, 1)])]


def test_loader_can_be_sent_to_other_processes() -> None:
    loader = pickle.loads(pickle.dumps(echo_loader()))
    assert list(loader) == list(echo_loader())


class Recorder(lightning.LightningModule):
    """Trains one number and notes the batches that it is given."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.batches: list[list[list[int]]] = []
        self.stop_after = stop_after

    def training_step(self, batch: Tensor, _: int) -> Tensor:
        self.batches.append(batch.tolist())
        if self.stop_after == len(self.batches):
            self.trainer.should_stop = True
        return (self.weight * batch.float().mean()).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., lightning.Trainer]:
    def make(**options: Any) -> lightning.Trainer:
        return lightning.Trainer(
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            **options,
        )

    return make


@pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*LeafSpec:FutureWarning")
@pytest.mark.parametrize("limit", [{"max_epochs": 3}, {"max_steps": 18}])
@pytest.mark.parametrize("stop_after", [3, 6, 8, 12])
def test_lightning_resumes_where_it_stopped(
    tmp_path: Path,
    make_trainer: Callable[..., lightning.Trainer],
    limit: dict[str, int],
    stop_after: int,
) -> None:
    def loader() -> ResumableLoader[Tensor]:
        sampler = EpochBatchSampler(23, batch_size=4, shuffle=True, seed=0)
        return ResumableLoader(Echo(), sampler, workers=0, collate_fn=torch.tensor)

    whole = Recorder()
    make_trainer(enable_checkpointing=False, **limit).fit(whole, loader())
    assert len(whole.batches) == 18
    assert [batch[0][0] for batch in whole.batches] == [0] * 6 + [1] * 6 + [2] * 6

    saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    stopped = Recorder(stop_after)
    make_trainer(callbacks=[saving], **limit).fit(stopped, loader())
    assert stopped.batches == whole.batches[:stop_after]

    resumed = Recorder()
    make_trainer(enable_checkpointing=False, **limit).fit(
        resumed, loader(), ckpt_path=str(tmp_path / f"step={stop_after}.ckpt")
    )
    assert resumed.batches == whole.batches[stop_after:]
