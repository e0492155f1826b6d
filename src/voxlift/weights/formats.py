"""The weight formats that are understood, each recognised by its fingerprint.

A new format is one file with a class like those in `weights/foreign` and one line in `FORMATS`.
"""

from voxlift.core.errors import WeightsError
from voxlift.weights.checkpoint import CheckpointFormat
from voxlift.weights.container import Container
from voxlift.weights.foreign.cspr import CsprFormat
from voxlift.weights.foreign.gvsl import GvslFormat
from voxlift.weights.foreign.kinetics import KineticsFormat
from voxlift.weights.foreign.medicalnet import MedicalNetFormat
from voxlift.weights.foreign.models_genesis import ModelsGenesisFormat
from voxlift.weights.foreign.monai import MonaiFormat
from voxlift.weights.foreign.mp3d import MP3DFormat
from voxlift.weights.foreign.nnunet import NnunetFormat
from voxlift.weights.foreign.planar import PLANAR_FORMATS, UndeclaredPlanarFormat
from voxlift.weights.foreign.segresnet import SegResNetFormat
from voxlift.weights.foreign.suprem_monai import SupremSwinUNETRFormat
from voxlift.weights.foreign.suprem_unet import SupremUnetFormat
from voxlift.weights.foreign.swin_file import NEW_MERGING
from voxlift.weights.foreign.swin_unetr import NewSwinUNETRFormat, SwinUNETRFormat
from voxlift.weights.foreign.torchvision_video import TorchvisionVideoFormat
from voxlift.weights.foreign.voco import VocoFormat
from voxlift.weights.own import VoxliftFormat
from voxlift.weights.state_dict import StateDictFormat
from voxlift.weights.translation import WeightFormat

OWN = "voxlift"
CHECKPOINT = "checkpoint"

FORMATS: dict[str, WeightFormat] = {
    OWN: VoxliftFormat(),
    CHECKPOINT: CheckpointFormat(),
    "torch": StateDictFormat(),
    "cspr": CsprFormat(),
    "mp3d": MP3DFormat(),
    "medicalnet": MedicalNetFormat(),
    "monai": MonaiFormat(),
    "kinetics": KineticsFormat(),
    "torchvision_video": TorchvisionVideoFormat(),
    "models_genesis": ModelsGenesisFormat(),
    "suprem_unet": SupremUnetFormat(),
    "suprem_swinunetr": SupremSwinUNETRFormat(),
    "segresnet": SegResNetFormat(),
    "swin_unetr": SwinUNETRFormat(),
    NEW_MERGING: NewSwinUNETRFormat(),
    "voco": VocoFormat(),
    "nnunet": NnunetFormat(),
    "gvsl": GvslFormat(),
    **PLANAR_FORMATS,
    "2d": UndeclaredPlanarFormat(),
}
"""Every format by the name with which a file can be declared to have it: `NAME:FILE`."""


def recognise(container: Container) -> str:
    """Name the format of a file.

    Raises:
        WeightsError: If none of the known formats has this fingerprint, or more than one.
    """
    found = [name for name, known in FORMATS.items() if known.recognises(container)]
    # A file of ours may hold the names of any other: its header says what it is.
    for own in (OWN, CHECKPOINT):
        if own in found:
            return own
    if len(found) == 1:
        return found[0]
    some = ", ".join(list(container.tensors)[:5]) or "no tensors at all"
    if found:
        raise WeightsError(
            f"{container.path} could be of several formats: {', '.join(found)}. Say which, as in "
            f"{found[0]}:{container.path}; what is declared decides strides, preprocessing and "
            "licence. If it is of none of them, load it into a network of ours yourself, check the "
            "result, and write that with voxlift.save_weights(...)."
        )
    raise WeightsError(
        f"{container.path} is of an unknown layout: it has no Voxlift header, and its tensors are "
        f"{some} ... Known formats: {', '.join(FORMATS)}. If it is of one of them under other "
        f"names, say so, as in cspr:{container.path}; else load it into a network yourself, check "
        "the result, and write it with voxlift.save_weights(...)."
    )
