from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from voxlift.core.errors import WeightsError
from voxlift.core.geometry import Geometry
from voxlift.core.types import Triple
from voxlift.nets.factory import BACKBONES, create_backbone
from voxlift.nets.resenc import ResEncEncoder
from voxlift.weights.container import Container
from voxlift.weights.file import read_weight_file
from voxlift.weights.foreign.nnunet import NnunetFormat
from voxlift.weights.formats import FORMATS
from voxlift.weights.load import load_weights

KNOWN = NnunetFormat()
STEM = "encoder.stem.convs.0.conv.weight"
PLAN: tuple[tuple[int, int, Triple, Triple], ...] = (
    (4, 1, (1, 3, 3), (1, 1, 1)),
    (8, 2, (3, 3, 3), (1, 2, 2)),
    (12, 1, (3, 3, 3), (2, 2, 2)),
    (12, 1, (3, 3, 3), (2, 2, 2)),
)
"""Channels, blocks, kernel and stride of each stage."""

CUBES = tuple(
    (channels, blocks, (3, 3, 3), (1 if i == 0 else 2,) * 3)
    for i, (channels, blocks) in enumerate(((4, 1), (8, 2), (8, 1)))
)


class TheirLayer(nn.Module):
    """A layer that holds its parts by name and again in the order in which they are run."""

    def __init__(
        self,
        before: int,
        after: int,
        kernel: Triple,
        stride: Triple = (1, 1, 1),
        *,
        bias: bool = True,
        active: bool = True,
        batch: bool = False,
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = nn.Conv3d(before, after, kernel, stride, padding, bias=bias)
        self.norm: nn.Module = (
            nn.BatchNorm3d(after) if batch else nn.InstanceNorm3d(after, eps=1e-5, affine=True)
        )
        last = [nn.LeakyReLU()] if active else []
        self.all_modules = nn.Sequential(self.conv, self.norm, *last)

    def forward(self, volume: Tensor) -> Tensor:
        """Run the parts."""
        out: Tensor = self.all_modules(volume)
        return out


class TheirBlock(nn.Module):
    """Two layers and a shortcut, pooled where they stride and projected where they widen."""

    def __init__(
        self, before: int, after: int, kernel: Triple, stride: Triple, **options: Any
    ) -> None:
        super().__init__()
        self.conv1 = TheirLayer(before, after, kernel, stride, **options)
        self.conv2 = TheirLayer(after, after, kernel, active=False, **options)
        skip: list[nn.Module] = [nn.AvgPool3d(stride, stride)] if stride != (1, 1, 1) else []
        if before != after:
            options = {**options, "bias": False}
            skip.append(TheirLayer(before, after, (1, 1, 1), active=False, **options))
        self.skip = nn.Sequential(*skip)

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the block."""
        out: Tensor = self.conv2(self.conv1(volume)) + self.skip(volume)
        return nn.functional.leaky_relu(out, 0.01)


class TheirEncoder(nn.Module):
    """A stem and stages of blocks."""

    def __init__(self, plan: Any, in_channels: int, **options: Any) -> None:
        super().__init__()
        before, kernel = plan[0][0], plan[0][2]
        stem = nn.Sequential(TheirLayer(in_channels, before, kernel, **options))
        self.stem = nn.ModuleDict({"convs": stem})
        stages = []
        for channels, blocks, kernel, stride in plan:
            made = [TheirBlock(before, channels, kernel, stride, **options)]
            for _ in range(blocks - 1):
                made.append(TheirBlock(channels, channels, kernel, (1, 1, 1), **options))
            stages.append(nn.ModuleDict({"blocks": nn.Sequential(*made)}))
            before = channels
        self.stages = nn.ModuleList(stages)

    def forward(self, volume: Tensor) -> list[Tensor]:
        """Compute a map for each stage."""
        out, maps = self.stem["convs"](volume), []
        for stage in self.stages:
            out = stage["blocks"](out)  # type: ignore[index]
            maps.append(out)
        return maps


class TheirUNet(nn.Module):
    """The encoder, and a decoder that holds it once more."""

    def __init__(self, plan: Any = CUBES, in_channels: int = 1, **options: Any) -> None:
        super().__init__()
        self.encoder = TheirEncoder(plan, in_channels, **options)
        self.decoder = nn.ModuleDict(
            {"encoder": self.encoder, "seg_layers": nn.ModuleList([nn.Conv3d(4, 2, 1)])}
        )

    def forward(self, volume: Tensor) -> list[Tensor]:
        """Compute the maps of the encoder."""
        maps: list[Tensor] = self.encoder(volume)
        return maps


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "nnunet", KNOWN)
    monkeypatch.setitem(BACKBONES, "resenc", ResEncEncoder)


@pytest.fixture
def theirs(randomised: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Make their network with random numbers, in double precision."""

    def make(plan: Any = CUBES, **options: Any) -> nn.Module:
        return randomised(TheirUNet(plan, **options)).double()

    return make


def nnunet_args(plan: Any, *, scheme: str = "ZScoreNormalization", **more: Any) -> dict[str, Any]:
    """What nnU-Net v2 stores of its plan, as far as it matters."""
    options = {
        "n_stages": len(plan),
        "strides": [list(stride) for _, _, _, stride in plan],
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
    }
    network = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
    configuration = {
        "spacing": [3.0, 0.8, 0.8],
        "normalization_schemes": [scheme],
        "use_mask_for_norm": [False],
        "architecture": {"network_class_name": network, "arch_kwargs": options},
    }
    configurations = {"2d": {}, "3d_fullres": configuration}
    plans = {"configurations": configurations, "transpose_forward": [0, 1, 2], **more}
    return {"init_args": {"plans": plans, "configuration": "3d_fullres", "fold": 0}}


def nnssl_args(**more: Any) -> dict[str, Any]:
    """What nnssl stores of its plan, as far as it matters."""
    configuration = {"spacing": [1, 1, 1], "normalization_schemes": ["ZScoreNormalization"]}
    plan = {
        "architecture_plans": {"arch_class_name": "ResEncL", "arch_kwargs": None},
        "pretrain_plan": {"configurations": {"onemmiso": configuration}},
        "pretrain_num_input_channels": 1,
        "key_to_encoder": "encoder.stages",
        "key_to_stem": "encoder.stem",
        **more,
    }
    return {"nnssl_adaptation_plan": plan, "trainer_name": "BaseMAETrainer", "citations": []}


def saved(folder: Path, state: dict[str, Tensor], extras: dict[str, Any]) -> Path:
    path = folder / "checkpoint_final.pth"
    beside = {"optimizer_state": {}, "grad_scaler_state": None, "current_epoch": 9, **extras}
    torch.save({"network_weights": state, **beside}, path)
    return path


def compare(ours: nn.Module, theirs: nn.Module, *shape: int) -> None:
    volume = torch.randn(*shape, dtype=torch.float64)
    with torch.no_grad():
        for found, expected in zip(ours.double()(volume), theirs(volume), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module._orig_mod."])
def test_ours_computes_what_theirs_does(
    tmp_path: Path, theirs: Callable[..., nn.Module], prefix: str
) -> None:
    network = theirs(PLAN, in_channels=2)
    state = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    file = read_weight_file(saved(tmp_path, state, nnunet_args(PLAN)))
    ours = create_backbone("resenc", weights=file, in_channels=2).eval()
    assert ours.out_channels == (4, 8, 12, 12)
    assert ours.strides == ((1, 1, 1), (1, 2, 2), (2, 4, 4), (4, 8, 8))
    report = load_weights(ours, file)
    assert report.is_complete
    assert (report.coverage, report.adapted, report.notes) == (1.0, {}, ())
    assert "decoder" in report.ignored[f"{prefix}decoder.seg_layers.0.weight"]
    assert "once more" in report.ignored[f"{prefix}decoder.{STEM}"]
    assert "training" in report.ignored["optimizer_state"]
    preprocessing = file.header.preprocessing
    assert preprocessing is not None
    assert (preprocessing.intensity, preprocessing.spacing_mm) == ("zscore", (3.0, 0.8, 0.8))
    compare(ours, network, 1, 2, 8, 16, 24)


def test_batch_norm_and_convolutions_without_bias(
    tmp_path: Path, theirs: Callable[..., nn.Module]
) -> None:
    network = theirs(PLAN, batch=True, bias=False)
    file = read_weight_file(saved(tmp_path, network.state_dict(), nnunet_args(PLAN)))
    assert file.header.architecture.norm == "batch"
    ours = create_backbone("resenc", weights=file).eval()
    report = load_weights(ours, file)
    assert report.is_complete
    assert "no bias" in report.adapted["stem.conv.bias"]
    compare(ours, network, 1, 1, 8, 16, 16)


def test_nnssl_encoders_are_found_where_the_plan_says(
    tmp_path: Path, theirs: Callable[..., nn.Module]
) -> None:
    network = theirs()
    state = network.state_dict()
    student = {f"student.{name}": tensor for name, tensor in state.items()}
    teacher = {f"teacher.{name}": tensor + 1 for name, tensor in state.items()}
    path = saved(tmp_path, {**student, **teacher}, nnssl_args())
    with pytest.raises(WeightsError, match=r"several .* student\.encoder\., .*teacher\.encoder\."):
        read_weight_file(path)
    extras = nnssl_args(key_to_encoder="student.encoder.stages")
    file = read_weight_file(saved(tmp_path, {**student, **teacher}, extras))
    ours = create_backbone("resenc", weights=file).eval()
    assert load_weights(ours, file).is_complete
    compare(ours, network, 1, 1, 8, 8, 8)
    header = file.header
    assert header.citation is not None
    assert "Wald" in header.citation
    assert header.preprocessing is not None
    assert header.preprocessing.spacing_mm == (1.0, 1.0, 1.0)


def test_one_channel_is_shared_out_over_several(
    tmp_path: Path, theirs: Callable[..., nn.Module]
) -> None:
    path = saved(tmp_path, theirs().state_dict(), nnssl_args())
    one, three = (create_backbone("resenc", weights=path, in_channels=n).eval() for n in (1, 3))
    volume = torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(
            three(volume.expand(1, 3, 8, 8, 8))[-1], one(volume)[-1], rtol=1e-3, atol=1e-4
        )


def test_without_a_plan_strides_are_inferred_and_it_says_so(
    make_container: Callable[..., Container], theirs: Callable[..., nn.Module]
) -> None:
    plan = (*CUBES[:2], (16, 1, (3, 3, 3), (1, 1, 1)), (16, 1, (3, 3, 3), (2, 2, 2)))
    state = theirs(plan).state_dict()
    bare = {n.removeprefix("encoder."): t for n, t in state.items() if n.startswith("encoder.")}
    twos = Geometry(stage_strides=((1, 1, 1), (2, 2, 2), (1, 1, 1), (2, 2, 2)))
    for tensors in (state, bare):
        container = make_container(tensors, wrapper="")
        assert KNOWN.recognises(container)
        translation = KNOWN.translate(container)
        assert translation.header.geometry == twos
        assert "strides were inferred" in translation.notes[0]
        assert "no plan" in translation.notes[0]
        assert translation.header.preprocessing is None
        assert any("not known" in note for note in translation.notes)
    wrong = nnunet_args(((4, 1, 3, (1, 1, 1)),) * 4)
    translation = KNOWN.translate(make_container(state, extras=wrong))
    assert translation.header.geometry == twos
    assert "does not fit its tensors" in translation.notes[0]


def test_two_names_of_one_tensor_have_to_agree(
    make_container: Callable[..., Container], theirs: Callable[..., nn.Module]
) -> None:
    state = dict(theirs().state_dict())
    for name in (
        "encoder.stem.convs.0.all_modules.0.weight",
        "encoder.stages.0.blocks.0.conv1.all_modules.1.bias",
        f"decoder.{STEM}",
    ):
        changed = {**state, name: state[name] + 1}
        with pytest.raises(WeightsError, match="are one tensor in the network, but differ"):
            KNOWN.translate(make_container(changed))
    short = {n: t for n, t in state.items() if ".all_modules." not in n}
    assert KNOWN.translate(make_container(short)).tensors.keys() == (
        KNOWN.translate(make_container(state)).tensors.keys()
    )


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"encoder.stages.0.blocks.0.conv3.conv.weight": 1}, "a bottleneck block"),
        ({"encoder.stages.0.blocks.0.squeeze_excitation.fc1.weight": 1}, "squeeze and excitation"),
        ({"encoder.stem.convs.1.conv.weight": 1}, "no part of a basic residual block"),
        ({"encoder.stages.1.blocks.0.conv2.norm.bias": None}, r"conv2\.norm\.bias is missing"),
        ({"encoder.stages.1.blocks.0.conv2.conv.bias": 3}, r"bias has the shape \(3,\)"),
        ({"encoder.stages.0.blocks.0.conv1.conv.weight": (4, 4, 2, 2, 2)}, "odd edges"),
        ({STEM: (4, 1, 3, 3)}, "2D configuration"),
        ({"encoder.stages.0.blocks.0.conv1.conv.weight": None}, "no stages"),
        ({"encoder.stages.0.blocks.0.skip.weight": 1}, "no part of a basic"),
    ],
)
def test_a_wrong_rest_is_refused(
    make_container: Callable[..., Container],
    theirs: Callable[..., nn.Module],
    changes: dict[str, Any],
    match: str,
) -> None:
    state = {n: t for n, t in theirs().state_dict().items() if ".all_modules." not in n}
    state = {n: t for n, t in state.items() if not n.startswith("decoder.")}
    for name, shape in changes.items():
        state.pop(name, None)
        if shape is not None:
            state[name] = torch.zeros(shape)
    with pytest.raises(WeightsError, match=match):
        KNOWN.translate(make_container(state))


def test_other_networks_are_refused(make_container: Callable[..., Container]) -> None:
    plain = make_container({"encoder.stages.0.0.convs.0.conv.weight": torch.zeros(1)})
    assert KNOWN.recognises(plain)
    with pytest.raises(WeightsError, match="plain U-Net, whose encoder has no residual blocks"):
        KNOWN.translate(plain)
    extras = nnssl_args(architecture_plans={"arch_class_name": "PrimusM"})
    primus = make_container({"eva.pos_embed": torch.zeros(1)}, extras=extras)
    assert KNOWN.recognises(primus)
    with pytest.raises(WeightsError, match="of the network PrimusM"):
        KNOWN.translate(primus)
    stranger = make_container({"conv1.weight": torch.zeros(1)})
    assert not KNOWN.recognises(stranger)
    with pytest.raises(WeightsError, match="not of nnU-Net or nnssl"):
        KNOWN.translate(stranger)


def test_an_encoder_that_only_a_decoder_holds_twice_is_refused(
    make_container: Callable[..., Container], theirs: Callable[..., nn.Module]
) -> None:
    state = theirs().state_dict()
    two = {f"decoder.{part}.{n}": t for part in "ab" for n, t in state.items()}
    with pytest.raises(WeightsError, match="all in a decoder"):
        KNOWN.translate(make_container(two))


@pytest.mark.parametrize(
    ("option", "match"),
    [
        ({"nonlin": "torch.nn.ReLU"}, r"trained with torch\.nn\.ReLU"),
        ({"nonlin_kwargs": {"negative_slope": 0.2}}, r"negative_slope=0\.2; expected 0\.01"),
        ({"norm_op_kwargs": {"eps": 0.001}}, r"eps=0\.001; expected 1e-05"),
        ({"norm_op": "torch.nn.InstanceNorm3d"}, "running statistics"),
    ],
)
def test_another_function_by_the_same_tensors_is_refused(
    make_container: Callable[..., Container],
    theirs: Callable[..., nn.Module],
    option: dict[str, Any],
    match: str,
) -> None:
    extras = nnunet_args(CUBES)
    configuration = extras["init_args"]["plans"]["configurations"]["3d_fullres"]
    configuration["architecture"]["arch_kwargs"] |= option
    state = theirs(batch="norm_op" in option).state_dict()
    with pytest.raises(WeightsError, match=match):
        KNOWN.translate(make_container(state, extras=extras))


def test_transposed_axes_are_noted(
    make_container: Callable[..., Container], theirs: Callable[..., nn.Module]
) -> None:
    extras = nnunet_args(CUBES, transpose_forward=[1, 0, 2])
    configuration = extras["init_args"]["plans"]["configurations"]["3d_fullres"]
    configuration["use_mask_for_norm"] = [True]
    translation = KNOWN.translate(make_container(theirs().state_dict(), extras=extras))
    notes = " ".join(translation.notes)
    assert "axes (1, 0, 2) of the files" in notes
    assert "inside a mask" in notes
    assert translation.header.preprocessing is not None
    assert translation.header.preprocessing.spacing_mm is None
