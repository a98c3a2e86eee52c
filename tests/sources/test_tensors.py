"""Weights in a file, without their network: the covariances that the network itself gives."""

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import mimetic
from mimetic.covariance.harvest import Harvest
from mimetic.errors import UserError
from mimetic.graph.computed import tensor_in_use
from mimetic.models.weight_file import read_weights

SAVE: dict[str, Callable[[dict[str, torch.Tensor], Path], object]] = {
    "safetensors": save_file,
    "pt": torch.save,
    "npz": lambda state, path: np.savez(path, **{name: t.numpy() for name, t in state.items()}),
    "lightning.ckpt": lambda state, path: torch.save(
        {"state_dict": {**{f"module.{n}": t for n, t in state.items()}, "loss.weight": torch.ones(3, 3)}},
        path,
    ),
}


def same(one: Harvest, other: Harvest, tolerance: float = 1e-6) -> None:
    """Compare layers, kinds, depths and covariances of two harvests."""
    assert [(h.layer, h.kind, h.depth) for h in one.layers] == [
        (h.layer, h.kind, h.depth) for h in other.layers
    ]
    for a, b in zip(one.layers, other.layers, strict=True):
        assert a.covariance.patch == b.covariance.patch
        assert a.covariance.trace == pytest.approx(b.covariance.trace, rel=tolerance)
        difference = a.covariance.dense() - b.covariance.dense()
        assert float(difference.norm()) <= tolerance * float(b.covariance.dense().norm())


@pytest.fixture(scope="module")
def mobilenet() -> nn.Module:
    """Return a network of timm with its own random weights."""
    torch.manual_seed(0)
    return timm.create_model("mobilenetv3_small_050", num_classes=10).eval()


@pytest.mark.parametrize("ending", SAVE)
@pytest.mark.parametrize(("statistic", "kind"), [("filters", "depthwise_conv"), ("nfm", "pointwise_conv")])
def test_a_state_dict_of_timm_gives_what_the_network_gives(
    mobilenet: nn.Module, tmp_path: Path, ending: str, statistic: str, kind: str
) -> None:
    """Layers, depths and covariances, from every format."""
    path = tmp_path / f"w.{ending}"
    SAVE[ending]({name: tensor.clone() for name, tensor in mobilenet.state_dict().items()}, path)
    layers = [r"blocks\..*"]
    found = mimetic.harvest(path, statistic=statistic, layers=layers, kinds=[kind])
    own = mimetic.harvest(mobilenet, statistic=statistic, kinds=[kind])
    names = {h.layer for h in found.layers}
    own_layers = tuple(h for h in own.layers if h.layer in names)
    assert len(own_layers) == len(found.layers) > 5
    if (ending, kind) == ("safetensors", "pointwise_conv"):  # within a block, by name
        found = replace(found, layers=tuple(found.layer(h.layer) for h in own_layers))
        depths = {h.layer: h.depth for h in found.layers}
    else:
        depths = {h.layer: i / (len(own_layers) - 1) for i, h in enumerate(own_layers)}
    same(found, Harvest("", statistic, tuple(replace(h, depth=depths[h.layer]) for h in own_layers)))


@pytest.mark.data
def test_the_filters_of_a_text_detector(tmp_path: Path) -> None:
    """Only its filters are known; those of 7×7 initialize a ConvMixer."""
    path = Path(os.environ["MIMETIC_DATA"]) / "weights" / "ppocrv6-det-depthwise.safetensors"
    if not path.is_file():
        pytest.skip("needs the filters")
    state = load_file(path)
    names = sorted(name for name in state if ".k7." in name)
    network = nn.ModuleDict({"depthwise": nn.ModuleDict()})
    for name in names:
        _, number, kernel, _ = name.split(".")
        layer = nn.Conv2d(96, 96, 7, groups=96, bias=False)
        layer.weight.data.copy_(state[name])
        network["depthwise"][number] = nn.ModuleDict({kernel: layer})
    found = mimetic.harvest(path, statistic="filters", layers=[r".*\.k7"])
    assert [h.layer for h in found.layers] == [name.removesuffix(".weight") for name in names]
    same(found, mimetic.harvest(network, statistic="filters"))
    rule = {
        "match": {"kind": "depthwise_conv"},
        "covariance": {"type": "filters", "from": {"tensors": str(path), "layers": r".*\.k7"}},
        "scale": {"type": "match_default", "gain": 2},
    }
    model = nn.Sequential(*(nn.Conv2d(96, 96, 9, groups=96) for _ in range(3)))
    plan = mimetic.initialize(model, {"recipe": 1, "init": [rule]})
    assert plan.entries[0].moments is not None
    assert any("depthwise.13.k7 of tensors" in note for note in plan.entries[0].notes)


class Net(nn.Module):
    """Layers of every kind that an ONNX graph knows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.norm = nn.GroupNorm(2, 8)
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 5, groups=8, padding=2) for _ in range(3))
        self.grouped = nn.Conv2d(8, 16, 3, groups=4, bias=False)
        self.hidden = nn.Linear(16, 12, bias=False)
        self.head = nn.Linear(12, 5)
        nn.utils.parametrizations.weight_norm(self.blocks[1])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the outputs."""
        maps = self.norm(self.stem(images))
        for block in self.blocks:
            maps = torch.relu(block(maps))
        return self.head(self.hidden(self.grouped(maps).mean((2, 3))))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the export of the network, written by torch."""
    pytest.importorskip("onnx")
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Net().eval(), (torch.zeros(1, 3, 16, 16),), path, dynamo=False)
    return path


@pytest.mark.parametrize("statistic", ["filters", "nfm"])
def test_an_onnx_export_gives_what_the_network_gives(exported: Path, statistic: str) -> None:
    """Kinds, groups and strides are those of the nodes; weight norm and transpositions are computed."""
    found, own = mimetic.harvest(exported, statistic=statistic), mimetic.harvest(Net(), statistic=statistic)
    same(found, own)
    assert [h.geometry.groups for h in found.layers] == [h.geometry.groups for h in own.layers]
    assert [h.geometry.stride for h in found.layers] == [h.geometry.stride for h in own.layers]
    notes = {h.layer: h.covariance.provenance.notes for h in found.layers}
    assert notes["blocks.1"] == ("computed by Div and Mul in the graph",)


def _layer(change: Callable[[nn.Module], object], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layer = nn.Conv2d(4, 6, 3)
    change(layer)
    with torch.no_grad():  # away from what the parametrization was made from
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return nn.Sequential(layer).eval()


COMPUTED = {
    "weight norm": parametrizations.weight_norm,
    "weight norm of inputs": lambda layer: parametrizations.weight_norm(layer, dim=1),
    "weight norm of all": lambda layer: parametrizations.weight_norm(layer, dim=None),
    "weight norm, hook": weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "spectral norm of inputs": lambda layer: parametrizations.spectral_norm(layer, dim=1),
    "spectral norm, hook": spectral_norm,
    "pruning": lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    "none": id,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("name", COMPUTED)
def test_computed_weights_are_those_in_use(name: str, tmp_path: Path) -> None:
    """What torch computes in a forward is computed from the file."""
    network, path = _layer(COMPUTED[name]), tmp_path / "w.pt"
    torch.save(network.state_dict(), path)
    (found,) = read_weights(path)
    torch.testing.assert_close(
        found.values.float(), tensor_in_use(network[0], "weight"), rtol=1e-5, atol=1e-6
    )
    assert (found.name, found.outputs) == ("0.weight", 6)
    assert any(note.startswith(("computed by ", "pruned")) for note in found.notes) == (name != "none")


WEIGHT = torch.randn(8, 6, 3, 3, generator=torch.Generator().manual_seed(0))
INTEGERS = (WEIGHT * 20).round().clamp(-127, 127).to(torch.int8)
SCALES = torch.rand(8, generator=torch.Generator().manual_seed(1)) + 0.5
MATRIX = INTEGERS.flatten(1)
QUANTIZED = {
    "one scale": ({"a.weight": INTEGERS, "a.weight_scale": torch.tensor(0.5)}, INTEGERS * 0.5),
    "zero point": (
        {"a.weight": INTEGERS, "a.weight_scale": torch.tensor(0.5), "a.weight_zero_point": torch.tensor(3)},
        (INTEGERS.float() - 3) * 0.5,
    ),
    "rows": ({"a.weight": INTEGERS, "a.scales": SCALES}, INTEGERS * SCALES.view(-1, 1, 1, 1)),
    "bitsandbytes": ({"a.weight": MATRIX, "a.SCB": SCALES}, MATRIX * SCALES.view(-1, 1) / 127),
    "blocks": (
        {"a.weight": MATRIX, "a.weight_scale_inv": torch.arange(6.0).view(2, 3) + 1},
        MATRIX * (torch.arange(6.0).view(2, 3) + 1).repeat_interleave(4, 0).repeat_interleave(18, 1),
    ),
    "float8": (
        {"a.weight": WEIGHT.to(torch.float8_e4m3fn), "a.weight_scale": torch.tensor(2.0)},
        WEIGHT.to(torch.float8_e4m3fn).float() * 2,
    ),
}


@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized_weights_are_dequantized(name: str, tmp_path: Path) -> None:
    """Integers times their scale, and a note of it."""
    stored, expected = QUANTIZED[name]
    save_file(stored, tmp_path / "w.safetensors")
    (found,) = read_weights(tmp_path / "w.safetensors")
    torch.testing.assert_close(found.values, expected.double())
    assert found.notes[0].startswith("dequantized from ")


def test_layers_of_a_sorted_file_are_in_numerical_order(tmp_path: Path) -> None:
    """Safetensors store by name; the first pattern of several comes first."""
    names = [f"blocks.{n}.dw.weight" for n in (0, 1, 2, 9, 10, 11)]
    save_file({name: torch.randn(4, 1, 3, 3) for name in (*names, "stem.weight")}, tmp_path / "w.safetensors")
    found = mimetic.harvest(tmp_path / "w.safetensors", statistic="filters", layers=["stem", ".*"])
    assert [h.layer for h in found.layers] == ["stem", *(name.removesuffix(".weight") for name in names)]


def test_matrices_are_read_by_bias_and_name(tmp_path: Path) -> None:
    """GPT-2 stores its matrices input first, also square ones; tables are embeddings."""
    state = {
        "wte.weight": torch.randn(11, 6),
        "attn.c_proj.weight": torch.randn(6, 6),
        "attn.c_proj.bias": torch.randn(6),
        "mlp.c_proj.weight": torch.randn(24, 6),
        "mlp.c_proj.bias": torch.randn(6),
        "lm_head.weight": torch.randn(11, 6),
    }
    torch.save(state, tmp_path / "w.pt")
    found = mimetic.harvest(tmp_path / "w.pt", statistic="nfm")
    assert [h.geometry.transposed for h in found.layers] == [True, True, False]
    first = state["attn.c_proj.weight"].double()
    torch.testing.assert_close(found.layers[0].covariance.dense(), first @ first.T)
    (table,) = mimetic.harvest(
        tmp_path / "w.pt", statistic="nfm", layers=["lm_head"], tensor_kind="linear"
    ).layers
    assert (table.kind, table.geometry.in_channels) == ("linear", 6)


def test_a_kind_decides_what_a_shape_does_not(tmp_path: Path) -> None:
    """o×1×k×k may be the first layer of a network for grey images."""
    save_file({"a.weight": torch.randn(6, 1, 5, 5)}, tmp_path / "w.safetensors")
    for kind, expected in ((None, "depthwise_conv"), ("conv", "conv")):
        (layer,) = mimetic.harvest(tmp_path / "w.safetensors", statistic="nfm", tensor_kind=kind).layers
        assert layer.kind == expected


def _evil(path: Path) -> None:
    np.savez(path, a=np.array([{}], dtype=object))


WRONG = {
    "MIM-M022": id,
    "MIM-M024": lambda path: path.write_bytes(b"no weights at all"),
    "MIM-M053": lambda path: _evil(path.with_suffix(".npz")),
    "MIM-M054": lambda path: torch.save({"a.parametrizations.weight.original": torch.ones(2, 2)}, path),
    "MIM-M055": lambda path: torch.save({"a.weight_orig": torch.ones(2, 2)}, path),
    "MIM-M056": lambda path: torch.save(
        {"a.weight_g": torch.ones(3, 1), "a.weight_v": torch.ones(2, 2)}, path
    ),
    "MIM-M057": lambda path: torch.save({"a.weight": torch.ones(2, 2, dtype=torch.int8)}, path),
    "MIM-M068": lambda path: torch.save(
        {"a.weight": torch.ones(2, 2, dtype=torch.int8), "a.scales": torch.ones(5)}, path
    ),
    "MIM-S022": lambda path: torch.save({"a.weight": torch.ones(2)}, path),
    "MIM-V011": lambda path: torch.save({"a.weight": torch.full((2, 2), torch.nan)}, path),
    "MIM-V182": lambda path: torch.save({"a.weight": torch.ones(2, 2, dtype=torch.complex64)}, path),
}


@pytest.mark.parametrize("code", WRONG)
def test_files_that_cannot_be_read_are_errors(code: str, tmp_path: Path) -> None:
    """Each has its code; nothing is executed."""
    path = tmp_path / ("w.npz" if code == "MIM-M053" else "w.pt")
    WRONG[code](path)
    with pytest.raises(UserError) as caught:
        mimetic.harvest(path, statistic="nfm")
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("MIM-S021", {"statistic": "agop"}),
        ("MIM-S022", {"statistic": "nfm", "layers": ["b"]}),
        ("MIM-S024", {"statistic": "nfm", "tensor_kind": "depthwise_conv"}),
        ("MIM-V020", {"statistic": "filters"}),
        ("MIM-A006", {"statistic": "nfm", "layers": ["("]}),
    ],
)
def test_wrong_requests_are_errors(code: str, options: dict[str, object], tmp_path: Path) -> None:
    """A statistic that needs the network, layers that are not there, kinds that cannot be."""
    save_file({"a.weight": torch.randn(6, 4)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError) as caught:
        mimetic.harvest(tmp_path / "w.safetensors", **options)
    assert caught.value.code == code


def test_rules_take_the_weights_of_a_file(tmp_path: Path) -> None:
    """In Python without training; mistakes have their place in the recipe."""
    path = tmp_path / "w.safetensors"
    save_file({"a.weight": torch.randn(64, 1, 5, 5), "a.bias": torch.zeros(64)}, path)

    def initialize(**ref: object) -> mimetic.Plan:
        covariance = {"type": ref.pop("type", "filters"), "from": {"tensors": str(path), **ref}}
        rule = {"match": {"kind": "depthwise_conv"}, "covariance": covariance}
        return mimetic.initialize(nn.Conv2d(16, 16, 5, groups=16), {"recipe": 1, "init": [rule]}, seed=1)

    plan = initialize(layers="a")
    assert plan.entries[0].notes[0].startswith("a bias and no norm in the file")
    assert plan.entries[0].moments is not None
    for ref, code in (
        ({"layers": "b"}, "MIM-S022"),
        ({"type": "agop"}, "MIM-S021"),
        ({"kind": "linear"}, "MIM-S024"),
    ):
        with pytest.raises(mimetic.RecipeError) as caught:
            initialize(**ref)
        assert [issue.code for issue in caught.value.issues] == [code]
    with pytest.raises(mimetic.RecipeError) as caught:
        initialize(tensors=None, stage="a", layers="b")
    assert "MIM-V213" in [issue.code for issue in caught.value.issues]
