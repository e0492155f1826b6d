"""The main path. READ THIS FIRST.

A config becomes data, a network, weights, a task and a Lightning Trainer, and ends as a run folder.
"""

import logging

import lightning as L

from voxlift.config import PretrainConfig
from voxlift.core.architecture import Architecture
from voxlift.core.geometry import named_geometry
from voxlift.core.randomness import derive_seed
from voxlift.data.image_augmentation import ImageAugmentation
from voxlift.data.image_batches import image_loader
from voxlift.data.image_source import open_images
from voxlift.nets.classifier import Classifier
from voxlift.nets.factory import build_backbone
from voxlift.tasks.pretrain import PretrainTask
from voxlift.training.engine import Monitor, count_steps, train
from voxlift.training.hardware import choose_device, prepare_memory_format
from voxlift.training.run_folder import logging_to, open_run_folder

logger = logging.getLogger(__name__)


def pretrain(config: PretrainConfig, *, resume: bool = False, overwrite: bool = False) -> None:
    folder = open_run_folder(config, resume=resume, overwrite=overwrite)
    with logging_to(folder.log):
        L.seed_everything(derive_seed(config.seed, "init") % 2**32, verbose=False)
        train_images, val_images = (
            open_images(
                config.data,
                split=split,
                seed=config.seed,
                val_fraction=config.val_fraction,
                skip_bad=config.skip_bad,
            )
            for split in ("train", "val")
        )
        train_loader = image_loader(train_images, batch_size=config.batch_size, size=config.image_size, augmentation=config.augmentation, seed=config.seed, workers=config.machine.workers, drop_last=True, cache_gb=config.machine.cache_gb)
        val_loader = image_loader(val_images, batch_size=2*config.batch_size, size=config.image_size, augmentation=ImageAugmentation.for_evaluation(), seed=config.seed, workers=config.machine.workers, shuffle=False, cache_gb=config.machine.cache_gb)
        n = config.network
        backbone = build_backbone(Architecture(name=n.backbone, width=n.width or 64, stem_kernel=n.stem or 7, norm=n.norm or "batch"), named_geometry(n.geometry))
        model = Classifier(backbone, num_classes=len(train_images.class_names))
        prepare_memory_format(model, choose_device(config.machine))
        num_steps = count_steps(config, batches_per_epoch=len(train_loader))
        task = PretrainTask(model, config.optimization, num_steps=num_steps, seed=config.seed, slice_shuffle=config.slice_shuffle, axis_shuffle=config.axis_shuffle, size_at=config.size_at)
        train(task, train_loader, val_loader, config=config, folder=folder, monitor=Monitor("val/top1"), num_steps=num_steps, resume=resume)
