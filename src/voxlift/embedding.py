"""Features of volumes by any start, in a file for whatever comes next.

Batch norm by the statistics of the volumes, not of the photographs that the start was trained on,
is the default because it was better in what was measured: simulated nodules of 24^3, 8 draws with
16, 32 and 96 to learn from and 160 to judge, the starts `tiny` and `tiny-axes`. Mean AUROC by the
statistics of the file and by those of the data:

| pooling | linear, file | linear, data | k-nn, file | k-nn, data |
|---|---|---|---|---|
| `mean` | 0.884 | 0.901 | 0.802 | 0.825 |
| `max` | 0.883 | 0.913 | 0.813 | 0.854 |
| `all-maps` | 0.917 | 0.930 | 0.813 | 0.843 |

`mean` is what a fine-tuned head sees, and stays the default although `all-maps` is better on
average: not so for every start and classifier. By the statistics of the data `all-maps` moves the
linear probe by +0.044 (`tiny`) and +0.016 (`tiny-axes`), k nearest neighbours by +0.040 and -0.004;
by those of the file the last one loses 0.024. For a linear probe `all-maps` is worth trying. From
`benchmarks/results/features.json`, which `scripts/measure_features.py` writes.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from voxlift.config import MachineConfig, VolumeConfig
from voxlift.core.errors import ConfigError, DataError
from voxlift.core.geometry import Geometry, named_geometry, suggest_geometry
from voxlift.core.preprocessing import Preprocessing
from voxlift.data.classification_cases import ClassificationCases
from voxlift.data.classification_source import open_classification
from voxlift.data.fingerprint import propose_preprocessing
from voxlift.data.prepared_volumes import PreparedVolumes
from voxlift.data.readable_volumes import ReadableVolumes, VolumeFile, VolumeFiles
from voxlift.inference.embedding import (
    Pool,
    Progress,
    Start,
    compute_features,
    gather_on,
    make_start,
    read_start,
)
from voxlift.inference.embedding_file import Embeddings, check_embedding_path, write_embeddings
from voxlift.inference.volumes import find_volumes
from voxlift.training.hardware import choose_device
from voxlift.weights.file import WeightFile
from voxlift.weights.header import installed_version

logger = logging.getLogger(__name__)

LEAST_FOR_STATISTICS = 8
"""Volumes below which batch norm keeps the statistics of the file, if nobody says otherwise."""

TRAINED_ON_VOLUMES = ("classify", "segment")


class FeatureOptions(BaseModel):
    """How features are computed.

    Args:
        pool: `mean` of the last feature map, its `max`, or the means of `all-maps`.
        statistics: What batch norm normalises by: the running statistics of the `file`, or those
            of the volumes at hand (`data`), gathered without labels. `auto` takes those of the data
            where there are 8 volumes or more, but for a model that was trained on volumes.
        volume: Size, spacing and intensities.
        geometry: Strides by name: pretrain, thumbnail, volume, unet, small, nodule or medicalnet;
            `auto` proposes what fits the size and spacing of the data, and says why.
        batch_size: Volumes in a batch.
        device: Where the network runs; auto takes the fastest there is.
        seed: Of everything random, such as the weights of `scratch`.
        skip_bad: List unreadable volumes and go on without them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pool: Pool = "mean"
    statistics: Literal["auto", "data", "file"] = "auto"
    volume: VolumeConfig = VolumeConfig()
    geometry: str = "auto"
    batch_size: int = Field(default=16, ge=1)
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    seed: int = 0
    skip_bad: bool = False

    @property
    def proposes_all(self) -> bool:
        """Whether the user left open what is done to the volumes, and the strides."""
        return self.volume == VolumeConfig() and self.geometry == "auto"


def embed(
    weights: str | Path,
    *,
    data: str | None = None,
    inputs: Sequence[str | Path] = (),
    out: str | Path | None = "runs/features.npz",
    options: FeatureOptions | None = None,
    overwrite: bool = False,
    on_volume: Progress | None = None,
) -> Embeddings:
    """Compute the features of volumes by a start, and write them to a file.

    A model that was trained on volumes sees them as it did then; for any other start preprocessing
    and strides are proposed from the volumes, as `finetune` does. With the statistics of the data
    the features of a volume depend a little on the volumes beside it.

    Args:
        weights: `scratch`, a bundled start, a weight file, or a run folder.
        data: Labelled volumes (see `FinetuneConfig`); or
        inputs: volumes without labels: files, DICOM series folders, or folders of them.
        out: An `.npz` or `.parquet` file; None writes none.
        options: How features are computed.
        overwrite: Replace the file.
        on_volume: Called with how many volumes are done, and of how many.

    Raises:
        ConfigError: If options cannot work, or the file exists.
        DataError: If volumes cannot be read, or features are not finite.
        WeightsError: If there is no such start, or it does not fit.
    """
    options = options or FeatureOptions()
    if (data is None) == (not inputs):
        raise ConfigError("Give either labelled volumes (--data) or files and folders of volumes.")
    if out is not None:
        check_embedding_path(Path(out), overwrite=overwrite)
    device = choose_device(MachineConfig(device=options.device))
    file = read_start(weights)
    volumes, indices, failures = _open_volumes(data, inputs, skip_bad=options.skip_bad)
    preprocessing, geometry, reasons = _settle(file, volumes, indices, options)
    prepared = PreparedVolumes(
        volumes, indices, preprocessing=preprocessing, skip_bad=options.skip_bad
    )
    start = make_start(
        str(weights),
        file,
        geometry=geometry,
        proposed=options.geometry == "auto",
        in_channels=preprocessing.in_channels,
        seed=options.seed,
        device=device,
    )
    gathers = gathers_statistics(options, file, len(prepared))
    num_norms = gather_on(start, prepared, batch_size=options.batch_size) if gathers else 0
    features = compute_features(
        start,
        prepared,
        pool=options.pool,
        batch_size=options.batch_size,
        on_volume=on_volume,
    )
    labelled = volumes if isinstance(volumes, ClassificationCases) else None
    found = Embeddings(
        features=features,
        ids=tuple(volumes.cases[i].id for i in prepared.indices),
        labels=labelled.labels[prepared.indices] if labelled else None,
        class_names=labelled.class_names if labelled else (),
        description={
            **describe_start(start, num_norms=num_norms),
            "preprocessing": preprocessing.model_dump(mode="json"),
            "pool": options.pool,
            "seed": options.seed,
            "reasons": list(reasons),
            "voxlift_version": installed_version(),
        },
        failures={**failures, **prepared.failures},
        path=None if out is None else Path(out),
    )
    if out is not None:
        write_embeddings(out, found)
    return found


def _open_volumes(
    data: str | None, inputs: Sequence[str | Path], *, skip_bad: bool
) -> tuple[ReadableVolumes, npt.NDArray[np.int64], dict[str, str]]:
    """Open labelled volumes, or list files and see which can be read."""
    if data is not None:
        # Splits are of no account here.
        cases = open_classification(data, skip_bad=skip_bad, published_split="ignore")
        return cases, np.arange(len(cases)), {}
    files = VolumeFiles(tuple(VolumeFile(path) for path in find_volumes(inputs)))
    good, failures = [], {}
    for index, file in enumerate(files.cases):
        try:
            files.read_volume(index)
        except DataError as error:
            if not skip_bad:
                raise
            logger.warning("skipped: %s", error)
            failures[file.id] = str(error)
        else:
            good.append(index)
    if not good:
        raise DataError(f"None of the {len(files.cases)} volumes can be read.")
    return files, np.array(good, np.int64), failures


def _settle(
    file: WeightFile | None,
    volumes: ReadableVolumes,
    indices: npt.NDArray[np.int64],
    options: FeatureOptions,
) -> tuple[Preprocessing, Geometry | None, tuple[str, ...]]:
    """Take preprocessing and strides of a model of volumes, or propose what is left open."""
    if options.proposes_all and file is not None and _was_trained_on_volumes(file):
        assert file.header.preprocessing is not None
        return file.header.preprocessing, None, ("as the model was trained",)
    volume = options.volume
    preprocessing, spacing_mm, reason = propose_preprocessing(
        volumes,
        indices,
        size_voxels=volume.size_voxels,
        spacing_mm=volume.spacing_mm,
        window=volume.window,
        unit=volume.unit,
        orientation=volume.orientation,
    )
    if options.geometry != "auto":
        return preprocessing, named_geometry(options.geometry), (reason,)
    assert preprocessing.size_voxels is not None
    geometry, why = suggest_geometry(size_voxels=preprocessing.size_voxels, spacing_mm=spacing_mm)
    return preprocessing, geometry, (reason, why)


def _was_trained_on_volumes(file: WeightFile) -> bool:
    head = file.header.head
    return (
        head is not None
        and head.task in TRAINED_ON_VOLUMES
        and file.header.preprocessing is not None
    )


def gathers_statistics(options: FeatureOptions, file: WeightFile | None, num_volumes: int) -> bool:
    """Decide whether batch norm gets the statistics of the data."""
    if options.statistics != "auto":
        return options.statistics == "data"
    if file is not None and _was_trained_on_volumes(file):
        return False
    if num_volumes < LEAST_FOR_STATISTICS:
        logger.info(
            "Batch norm keeps its statistics, for %d volumes are too few to gather others.",
            num_volumes,
        )
    return num_volumes >= LEAST_FOR_STATISTICS


def describe_start(start: Start, *, num_norms: int) -> dict[str, JsonValue]:
    """Say what network features come from, for a file.

    Args:
        start: The start.
        num_norms: Batch norms whose statistics were gathered on the data.
    """
    backbone = start.backbone
    return {
        "start": start.name,
        "sha256": start.sha256,
        "licence": start.licence,
        "architecture": backbone.architecture.model_dump(mode="json"),
        "geometry": backbone.geometry.model_dump(mode="json"),
        "batch_norms_with_statistics_of_the_data": num_norms,
        "notes": list(start.notes),
    }
