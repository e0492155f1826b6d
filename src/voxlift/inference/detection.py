"""Find boxes in the key slices of a data set, in pixels of the images as they are stored."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Int64
from torch import Tensor

from voxlift.core.detection_settings import DetectionSettings
from voxlift.core.errors import ConfigError, DataError
from voxlift.data.box_augmentation import resized
from voxlift.data.detection_batches import detection_loader
from voxlift.data.detection_cases import DetectionCases
from voxlift.inference.saved_model import SavedModel
from voxlift.nets.detection_head import Detection
from voxlift.nets.detector import Detector

Autocast = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, eq=False)
class CaseBoxes:
    """What a detector found in one image, the best first.

    Attributes:
        boxes: x1, y1, x2, y2 in pixels of the stored image, and the score. Pixel i spans i to
            i + 1.
        labels: Class numbers from 0.
    """

    boxes: Float32[np.ndarray, "boxes 5"]
    labels: Int64[np.ndarray, " boxes"]

    def __len__(self) -> int:
        """Count the boxes."""
        return len(self.labels)


def detect_cases(
    model: SavedModel,
    cases: DetectionCases,
    indices: npt.NDArray[np.int64],
    *,
    batch_size: int,
    score_threshold: float | None = None,
    autocast: Autocast = nullcontext,
    on_case: Callable[[str], None] | None = None,
) -> list[CaseBoxes]:
    """Find boxes in some cases.

    Images that are fed in one size go into batches together, so that no answer depends on the
    padding of a larger neighbour.

    Args:
        model: A detector.
        cases: The data set.
        indices: The cases to look at.
        batch_size: Images in a batch.
        score_threshold: Boxes with a lower score are left out; None takes the detector's own. It is
            the detector's own again afterwards.
        autocast: Makes the context in which the network is run.
        on_case: Called with the id of each case when it is done; those of one size follow each
            other.

    Returns:
        What was found in each, in the order of `indices`, clipped to its image.

    Raises:
        ConfigError: If the model is no single detector, or the images are not of its kind.
        DataError: If there is no case, or an image cannot be read.
        VoxliftError: If the network's maps are not finite.
    """
    detector = the_detector(model)
    device = next(detector.parameters()).device
    settings = model.detection
    loaders = [
        (
            positions,
            detection_loader(
                cases,
                indices[positions],
                settings=settings,
                preprocessing=model.preprocessing,
                batch_size=min(batch_size, 1) if size is None else batch_size,
                seed=0,
                shuffle=False,
            ),
        )
        for size, positions in _by_fed_size(cases, indices, settings).items()
    ]
    found: dict[int, CaseBoxes] = {}
    with lend_threshold(detector, score_threshold):
        for positions, loader in loaders:
            places = iter(positions)
            for batch in loader:
                volumes = batch["volumes"]
                with autocast():
                    answers = detector.detect([volume.to(device) for volume in volumes])
                for answer, volume, scale, index in zip(
                    answers, volumes, batch["scales"], batch["indices"].tolist(), strict=True
                ):
                    found[next(places)] = _in_stored_image(answer, volume, scale)
                    if on_case is not None:
                        on_case(cases.cases[index].id)
    return [found[position] for position in range(len(indices))]


def the_detector(model: SavedModel) -> Detector:
    """Return the network of a model that finds boxes.

    Raises:
        ConfigError: If the model does something else, or is several networks.
    """
    network = model.networks[0]
    if not isinstance(network, Detector):
        raise ConfigError(
            f"The model was trained to {model.head.task} and finds no boxes. Give a detector."
        )
    if len(model.networks) > 1:
        raise ConfigError(
            f"There are {len(model.networks)} detectors, but the boxes of several cannot be "
            "averaged. Give the weight file of one."
        )
    return network


def check_detector_classes(model: SavedModel, cases: DetectionCases) -> None:
    """Check that a detector and a data set mean the same by their labels.

    Raises:
        DataError: If they do not.
    """
    found, known = cases.class_names, model.detection.class_names
    if found != known:
        raise DataError(
            f"{cases.origin} has the classes {_listed(found)}, but the model finds "
            f"{_listed(known)}. Give data with the model's classes."
        )


def _listed(names: tuple[str, ...], *, most: int = 10) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@contextmanager
def lend_threshold(detector: Detector, threshold: float | None) -> Iterator[None]:
    """Let a detector give boxes from another score on for a while; None leaves it its own."""
    before = detector.score_threshold
    detector.score_threshold = before if threshold is None else threshold
    try:
        yield
    finally:
        detector.score_threshold = before


def _by_fed_size(
    cases: DetectionCases, indices: npt.NDArray[np.int64], settings: DetectionSettings
) -> dict[tuple[int, int] | None, list[int]]:
    """Group positions in `indices` by the size of their images as fed; None is not known yet.

    Sizes come in the order of their first images.
    """
    groups: dict[tuple[int, int] | None, list[int]] = {}
    for position, index in enumerate(indices.tolist()):
        size = cases.cases[index].size
        fed = size and resized(
            size,
            image_size=settings.image_size,
            max_image_size=max(settings.image_size, settings.max_image_size),
        )
        groups.setdefault(fed, []).append(position)
    # Of no images a loader tells.
    return groups or {None: []}


def _in_stored_image(found: Detection, volume: Tensor, scale: Tensor) -> CaseBoxes:
    """Bring boxes from the image as it was fed to the image as it is stored."""
    scales = scale.double().numpy()
    # The scales are rounded, the size of an image is a whole number.
    width, height = np.rint([volume.shape[-1], volume.shape[-2]] / scales[:2])
    corners = found["boxes"].double().cpu().numpy() / scales
    clipped = corners.clip(0, [width, height, width, height])
    scores = found["scores"].double().cpu().numpy()
    return CaseBoxes(
        boxes=np.column_stack([clipped, scores]).astype(np.float32),
        labels=found["labels"].cpu().numpy().astype(np.int64),
    )
