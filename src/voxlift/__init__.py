"""Give 3D medical networks a supervised start from labelled 2D photographs."""

from voxlift.config import DetectConfig, FinetuneConfig, PretrainConfig, SegmentConfig
from voxlift.core.errors import ConfigError, DataError, VoxliftError, WeightsError
from voxlift.core.geometry import Geometry, suggest_geometry
from voxlift.core.preprocessing import Preprocessing
from voxlift.core.report import LoadReport
from voxlift.data.volume import Volume
from voxlift.data.volumes import read_volume, write_volume
from voxlift.embedding import embed
from voxlift.evaluation import evaluate
from voxlift.experiment import finetune, pretrain
from voxlift.inference.conversion import convert_weights
from voxlift.inference.export import export_model
from voxlift.lifting import lift
from voxlift.nets.conversion import convert_2d
from voxlift.nets.factory import create_backbone, create_model, list_backbones
from voxlift.prediction import predict
from voxlift.probing import probe
from voxlift.training.run import Run
from voxlift.weights.bundled import list_weights
from voxlift.weights.catalogue import list_formats
from voxlift.weights.hub import push_weights
from voxlift.weights.load import load_weights
from voxlift.weights.save import save_weights

__all__ = [
    "ConfigError",
    "DataError",
    "DetectConfig",
    "FinetuneConfig",
    "Geometry",
    "LoadReport",
    "Preprocessing",
    "PretrainConfig",
    "Run",
    "SegmentConfig",
    "Volume",
    "VoxliftError",
    "WeightsError",
    "convert_2d",
    "convert_weights",
    "create_backbone",
    "create_model",
    "embed",
    "evaluate",
    "export_model",
    "finetune",
    "lift",
    "list_backbones",
    "list_formats",
    "list_weights",
    "load_weights",
    "predict",
    "pretrain",
    "probe",
    "push_weights",
    "read_volume",
    "save_weights",
    "suggest_geometry",
    "write_volume",
]
