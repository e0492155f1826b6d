"""What a checkpoint of nnU-Net or nnssl says of its network and of the data it was fed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from voxlift.core.geometry import ALL, ONES
from voxlift.core.preprocessing import Preprocessing
from voxlift.core.types import Triple

PRESETS = {"ResEncL": (ONES, *(ALL,) * 5), "NoSkipResEncL": (ONES, *(ALL,) * 5)}
"""Strides of the networks that nnssl knows by name."""

ZSCORE = "ZScoreNormalization"
CT = "CTNormalization"


@dataclass(frozen=True)
class NnunetPlan:
    """What was found, as far as it was found.

    Args:
        network: Name of the network's class or preset.
        encoder_key: Where the encoder stands among the tensors.
        strides: Of each stage.
        options: Further options of the network.
        axis_order: Axes of the files in the order of the network's.
        spacing_mm: Along the network's axes.
        normalization: Of each channel.
        inside_mask: Whether the statistics of normalization were taken inside a mask.
        intensities: Of each channel's foreground, for the normalization of CT.
    """

    network: str | None = None
    encoder_key: str | None = None
    strides: tuple[Triple, ...] | None = None
    options: Mapping[str, object] | None = None
    axis_order: tuple[int, ...] | None = None
    spacing_mm: tuple[float, ...] | None = None
    normalization: tuple[str, ...] = ()
    inside_mask: bool = False
    intensities: Mapping[str, object] | None = None

    @property
    def is_transposed(self) -> bool:
        """Whether the network's axes are not those of the files."""
        return self.axis_order not in (None, (0, 1, 2))

    def preprocessing(self, in_channels: int) -> Preprocessing | None:
        """Say what the network was fed; None if the plan does not say, or says more."""
        schemes = set(self.normalization)
        spacing = None if self.is_transposed else self.spacing_mm
        is_spacing = spacing is not None and len(spacing) == 3 and min(spacing) > 0
        fixed = {
            "orientation": "stored",
            "spacing_mm": spacing if is_spacing else None,
            "in_channels": in_channels,
        }
        if schemes == {ZSCORE}:
            return Preprocessing.model_validate({**fixed, "intensity": "zscore"})
        if schemes == {CT} and in_channels == 1:
            window = _ct_window(self.intensities)
            return Preprocessing.model_validate({**fixed, **window}) if window else None
        return None


def read_plan(extras: Mapping[str, object]) -> NnunetPlan:
    """Read the plan that stands beside the tensors, and take nothing for granted in it."""
    adaptation = _mapping(extras.get("nnssl_adaptation_plan"))
    if adaptation is not None:
        return _of_nnssl(adaptation, extras)
    return _of_nnunet(_mapping(extras.get("init_args")) or {})


def _of_nnssl(adaptation: Mapping[str, object], extras: Mapping[str, object]) -> NnunetPlan:
    network = _mapping(adaptation.get("architecture_plans")) or {}
    name = _text(network.get("arch_class_name")) or _text(adaptation.get("architecture_name"))
    options = _mapping(network.get("arch_kwargs"))
    plan = _mapping(adaptation.get("pretrain_plan")) or {}
    started_with = _mapping(extras.get("init_args")) or {}
    chosen = _text(started_with.get("configuration_name"))
    key = _text(adaptation.get("key_to_encoder")) or _text(
        adaptation.get("state_dict_key_to_encoder")
    )
    return _plan(
        network=name,
        encoder_key=key,
        options=options,
        strides=_strides((options or {}).get("strides")) or PRESETS.get(name or ""),
        plan=plan,
        configuration=_configuration(plan, chosen),
    )


def _of_nnunet(init_args: Mapping[str, object]) -> NnunetPlan:
    plan = _mapping(init_args.get("plans")) or {}
    configuration = _configuration(plan, _text(init_args.get("configuration")))
    network = _mapping(configuration.get("architecture")) or {}
    options = _mapping(network.get("arch_kwargs"))
    name = _text(network.get("network_class_name")) or _text(configuration.get("UNet_class_name"))
    strides = (options or {}).get("strides", configuration.get("pool_op_kernel_sizes"))
    return _plan(
        network=name.rsplit(".", 1)[-1] if name else None,
        encoder_key=None,
        options=options,
        strides=_strides(strides),
        plan=plan,
        configuration=configuration,
    )


def _plan(
    *,
    network: str | None,
    encoder_key: str | None,
    options: Mapping[str, object] | None,
    strides: tuple[Triple, ...] | None,
    plan: Mapping[str, object],
    configuration: Mapping[str, object],
) -> NnunetPlan:
    """Add to what is known of the network what both projects say of the data."""
    order = _integers(plan.get("transpose_forward")) or ()
    masks = configuration.get("use_mask_for_norm")
    return NnunetPlan(
        network=network,
        encoder_key=encoder_key,
        options=options,
        strides=strides,
        axis_order=order if sorted(order) == [0, 1, 2] else None,
        spacing_mm=_numbers(configuration.get("spacing")),
        normalization=tuple(map(str, _list(configuration.get("normalization_schemes")) or ())),
        inside_mask=any(_list(masks) or [masks]),
        intensities=_mapping(plan.get("foreground_intensity_properties_per_channel")),
    )


def _configuration(plan: Mapping[str, object], chosen: str | None) -> Mapping[str, object]:
    """Find the configuration that was trained; an empty one if that is not clear."""
    configurations = _mapping(plan.get("configurations")) or {}
    if chosen is None and len(configurations) == 1:
        chosen = next(iter(configurations))
    return _mapping(configurations.get(chosen or "")) or {}


def _ct_window(intensities: Mapping[str, object] | None) -> dict[str, object] | None:
    """Put nnU-Net's normalization of CT into our terms: clip, subtract a mean, divide by a std."""
    channel = _mapping((intensities or {}).get("0")) or {}
    names = ("percentile_00_5", "percentile_99_5", "mean", "std")
    numbers = _numbers([channel.get(name) for name in names])
    if numbers is None:
        return None
    low, high, mean, std = numbers
    if not low < high or not std > 0:
        return None
    # The window scales to 0..1 first, so mean and std are those of the scaled numbers.
    width = high - low
    return {
        "intensity": "window",
        "window": (low, high),
        "unit": "HU",
        "mean": (mean - low) / width,
        "std": std / width,
    }


def _strides(value: object) -> tuple[Triple, ...] | None:
    """Read strides, one number or three for each stage."""
    strides: list[Triple] = []
    for entry in _list(value) or ():
        triple = _integers([entry] * 3 if isinstance(entry, int) else entry)
        if triple is None or len(triple) != 3 or min(triple) < 1:
            return None
        strides.append((triple[0], triple[1], triple[2]))
    return tuple(strides) or None


def _mapping(value: object) -> Mapping[str, object] | None:
    return value if isinstance(value, Mapping) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _list(value: object) -> Sequence[object] | None:
    return value if isinstance(value, list | tuple) else None


def _numbers(value: object) -> tuple[float, ...] | None:
    """Read a list of finite numbers; None if it is anything else."""
    numbers = [
        float(entry)
        for entry in _list(value) or ()
        if isinstance(entry, int | float) and math.isfinite(entry)
    ]
    return tuple(numbers) if numbers and len(numbers) == len(_list(value) or ()) else None


def _integers(value: object) -> tuple[int, ...] | None:
    """Read a list of whole numbers; None if it is anything else."""
    numbers = _numbers(value)
    if numbers is None or any(number != int(number) for number in numbers):
        return None
    return tuple(int(number) for number in numbers)
