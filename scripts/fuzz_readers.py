"""The readers of everything that a user may have been sent, and what each is tried on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fuzz_seeds as seeds
import fuzz_volume_seeds as volume_seeds
from voxlift.config import FinetuneConfig
from voxlift.data.dataset_json import read_dataset_json
from voxlift.data.deeplesion_pixels import read_hounsfield
from voxlift.data.detection_source import open_detection
from voxlift.data.images import read_image, read_image_size
from voxlift.data.lidc import read_lidc
from voxlift.data.manifest import read_manifest
from voxlift.data.medmnist import read_medmnist
from voxlift.data.msd import read_msd
from voxlift.data.nnunet_raw import read_nnunet_raw
from voxlift.data.segmentation_manifest import read_segmentation_manifest
from voxlift.data.volumes import read_channels, read_volume
from voxlift.inference.candidate_files import CandidateTable, read_candidates
from voxlift.inference.froc_file import load_findings, load_froc_curve
from voxlift.inference.saved_model import load_model
from voxlift.inference.volume_table import VolumeTable
from voxlift.training.checkpoints import read_checkpoint
from voxlift.training.metrics_file import read_metrics
from voxlift.training.run_folder import RunFolder, check_run_folder, load_yaml
from voxlift.weights.inspect import describe_weights


@dataclass(frozen=True)
class Reader:
    """A kind of input.

    Attributes:
        seeds: Makes sound inputs: what each folder holds.
        open: Reads the damaged one in a folder, given the name of the file that was damaged.
        damaged: Ends of the names of the files that are damaged; all if there are none.
    """

    seeds: Callable[[], list[volume_seeds.Files]]
    open: Callable[[Path, str], object]
    damaged: tuple[str, ...] = ()


def _one(read: Callable[[Path], object], suffix: str) -> Callable[[Path, str], object]:
    """Read the one file with a suffix."""

    def open_it(folder: Path, name: str) -> object:
        del name
        return read(next(folder.glob(f"*{suffix}")))

    return open_it


def _read_image(path: Path) -> object:
    return read_image_size(path), read_image(path), read_image(path, draft_size=2)


def _read_segmentation(folder: Path, name: str) -> object:
    description = read_dataset_json(folder / name)
    if description.file_ending:
        return read_nnunet_raw(folder, description)
    return read_msd(description)


def _read_lidc(folder: Path, name: str) -> object:
    del name
    cases = read_lidc(folder)
    return cases.read_volume(0)


def _read_detection(folder: Path, name: str) -> object:
    return open_detection(folder / name) if name.endswith(".json") else open_detection(folder)


def _read_slices(folder: Path, name: str) -> object:
    return read_hounsfield(folder / name)


def _resume(folder: Path, name: str) -> object:
    """Read what a resumed run does, of the file that was damaged first."""
    run = RunFolder(folder / "run")
    if name.endswith(".yaml"):
        config = FinetuneConfig.model_validate(
            {"data": "nodules.csv", "out": run.path, "machine": {"device": "cpu"}}
        )
        check_run_folder(config, resume=True)
        return load_yaml(run.config)
    if name.endswith(".ckpt"):
        return read_checkpoint(run.last_checkpoint)
    return read_metrics(run.metrics)


def _read_report(folder: Path, name: str) -> object:
    """Read what evaluation and prediction write and read again."""
    if name == "scan.candidates.json":
        return read_candidates(folder / name)
    if name == "froc.json":
        return load_froc_curve(folder)
    if name == "findings.npz":
        return load_findings(folder)
    return (CandidateTable if name == "candidates.csv" else VolumeTable).read(folder / name)


READERS: dict[str, Reader] = {
    "NIfTI (.nii)": Reader(volume_seeds.nifti, _one(read_channels, ".nii")),
    "NIfTI (.nii.gz)": Reader(volume_seeds.compressed_nifti, _one(read_channels, ".nii.gz")),
    "NRRD": Reader(volume_seeds.nrrd, _one(read_channels, ".nrrd")),
    "NHDR and its data": Reader(volume_seeds.nhdr, _one(read_channels, ".nhdr")),
    "MHA": Reader(volume_seeds.mha, _one(read_channels, ".mha")),
    "MHD and its data": Reader(volume_seeds.mhd, _one(read_channels, ".mhd")),
    "DICOM series": Reader(volume_seeds.dicom_series, lambda folder, _: read_volume(folder)),
    "enhanced DICOM": Reader(volume_seeds.enhanced_dicom, lambda folder, _: read_volume(folder)),
    "NumPy (.npy)": Reader(volume_seeds.npy, _one(read_channels, ".npy")),
    "NumPy (.npz)": Reader(volume_seeds.npz, _one(read_channels, ".npz")),
    "MedMNIST": Reader(volume_seeds.medmnist, _one(read_medmnist, ".npz")),
    "photographs": Reader(seeds.images, _one(_read_image, "")),
    "slices of DeepLesion": Reader(seeds.deeplesion, _read_slices, (".png",)),
    "safetensors": Reader(seeds.models, _one(describe_weights, ".safetensors")),
    "models for prediction": Reader(seeds.models, _one(load_model, ".safetensors")),
    "pickled weights": Reader(seeds.pickles, _one(describe_weights, ".pth")),
    "weights of others": Reader(seeds.foreign_weights, _one(describe_weights, ".pth")),
    "exported programs": Reader(seeds.programs, _one(describe_weights, "")),
    "run folders": Reader(seeds.run_folders, _resume),
    "dataset.json": Reader(seeds.segmentation_json, _read_segmentation, (".json",)),
    "manifests of volumes": Reader(seeds.manifests, _one(read_manifest, ".csv"), (".csv",)),
    "manifests with masks": Reader(
        seeds.segmentation_manifests, _one(read_segmentation_manifest, ".csv"), (".csv",)
    ),
    "COCO": Reader(seeds.coco, _read_detection, (".json",)),
    "DeepLesion": Reader(seeds.deeplesion, _read_detection, (".json", ".csv")),
    "LIDC": Reader(seeds.lidc, _read_lidc),
    "reports and predictions": Reader(seeds.reports, _read_report),
}
"""By what the documentation calls them."""
