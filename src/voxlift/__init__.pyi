"""The public names, for type checkers and for the module itself, which reads them from here."""

from . import metrics as metrics
from .config import DetectConfig as DetectConfig
from .config import FinetuneConfig as FinetuneConfig
from .config import PretrainConfig as PretrainConfig
from .config import SegmentConfig as SegmentConfig
from .core.errors import ConfigError as ConfigError
from .core.errors import DataError as DataError
from .core.errors import VoxliftError as VoxliftError
from .core.errors import WeightsError as WeightsError
from .core.geometry import Geometry as Geometry
from .core.geometry import suggest_geometry as suggest_geometry
from .core.preprocessing import Preprocessing as Preprocessing
from .core.report import LoadReport as LoadReport
from .data.volume import Volume as Volume
from .data.volumes import read_volume as read_volume
from .data.volumes import write_volume as write_volume
from .embedding import embed as embed
from .evaluation import evaluate as evaluate
from .experiment import finetune as finetune
from .experiment import pretrain as pretrain
from .inference.conversion import convert_weights as convert_weights
from .inference.export import export_model as export_model
from .lifting import lift as lift
from .nets.conversion import convert_2d as convert_2d
from .nets.factory import create_backbone as create_backbone
from .nets.factory import create_model as create_model
from .nets.factory import list_backbones as list_backbones
from .prediction import predict as predict
from .probing import probe as probe
from .training.run import Run as Run
from .weights.bundled import list_weights as list_weights
from .weights.catalogue import list_formats as list_formats
from .weights.hub import push_weights as push_weights
from .weights.load import load_weights as load_weights
from .weights.save import save_weights as save_weights

__all__: list[str]
