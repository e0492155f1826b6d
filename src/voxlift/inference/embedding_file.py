"""Features in a file: one row a volume, with what they were computed by."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from voxlift.core.errors import ConfigError
from voxlift.core.extras import require_extra
from voxlift.core.files import write_aside
from voxlift.inference.embedding import Features
from voxlift.weights.header import HEADER_KEY

SUFFIXES = (".npz", ".parquet")


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Features of volumes.

    Groups (patients) are no part of it: their names may be those of people.

    Args:
        features: One row a volume.
        ids: What the volumes are called: the ids of cases, or paths.
        labels: Class number of each volume, if they are labelled.
        class_names: What the numbers stand for.
        description: The start with its sha256, preprocessing, geometry, pooling and the like.
        failures: Volumes that could not be used, and why. They have no row.
        path: The file that was written, if any.
    """

    features: Features
    ids: tuple[str, ...]
    labels: npt.NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()
    description: dict[str, JsonValue] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    path: Path | None = None


def check_embedding_path(path: Path, *, overwrite: bool) -> None:
    """See, before anything is computed, that features can be written to a file.

    Raises:
        ConfigError: If the suffix is unknown, what writes it is not installed, or the file is there
            already.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"{path} ends in {path.suffix!r}; features are written to {' or '.join(SUFFIXES)}."
        )
    if path.suffix == ".parquet":
        require_extra("parquet", "Parquet files", otherwise="An .npz file needs nothing more.")
    if path.exists() and not overwrite:
        raise ConfigError(
            f"{path} exists already. Replace it with --overwrite, or choose another with --out."
        )


def write_embeddings(path: str | Path, embeddings: Embeddings) -> Path:
    """Write features to `.npz` or `.parquet`, whole or not at all.

    An `.npz` holds `features` (float32), `ids`, `labels` and `class_names` if there are any, and
    `description` (JSON); `numpy.load` reads it without pickles. A `.parquet` has the columns `id`,
    `label` and `class` if there are any, `f0`, `f1` ..., and the description under the key
    `voxlift` of its metadata.

    Raises:
        ConfigError: As `check_embedding_path`, but for a file that is there: it is replaced.
        DataError: If the file cannot be written.
    """
    path = Path(path)
    check_embedding_path(path, overwrite=True)
    description = json.dumps(
        {**embeddings.description, "failures": dict(embeddings.failures)}, sort_keys=True
    )
    with write_aside(path) as aside:
        if path.suffix == ".npz":
            _write_npz(aside, embeddings, description)
        else:
            _write_parquet(aside, embeddings, description)
    return path


def _write_npz(path: Path, embeddings: Embeddings, description: str) -> None:
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "features": embeddings.features,
        "ids": _text(embeddings.ids),
        "description": np.array(description),
    }
    if embeddings.labels is not None:
        arrays |= {"labels": embeddings.labels, "class_names": _text(embeddings.class_names)}
    np.savez_compressed(path, allow_pickle=False, **arrays)


def _text(words: Sequence[str]) -> npt.NDArray[np.str_]:
    return np.array(list(words), dtype=np.str_)


def _write_parquet(path: Path, embeddings: Embeddings, description: str) -> None:
    pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    columns: dict[str, object] = {"id": list(embeddings.ids)}
    if embeddings.labels is not None:
        columns["label"] = embeddings.labels
        columns["class"] = [embeddings.class_names[label] for label in embeddings.labels]
    columns |= {f"f{i}": column for i, column in enumerate(embeddings.features.T)}
    table = pyarrow.table(columns).replace_schema_metadata({HEADER_KEY: description})
    parquet.write_table(table, path)
