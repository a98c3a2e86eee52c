"""Statistics of attention: what was drawn is measured again, and drawn from what was measured."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner, Result

import mimetic
from mimetic.cli import app
from mimetic.config.errors import RecipeError
from mimetic.covariance.harvest import harvest_key
from mimetic.covariance.network import TrainedNetwork
from mimetic.covariance.store import ATTENTION, read_header, save_header
from mimetic.errors import RunError, UserError
from mimetic.graph.sites import find_sites
from mimetic.initializers.attention_statistics import (
    AttentionStatistics,
    LayerStatistics,
    Values,
    load_attention,
    measure_attention,
    save_attention,
)
from mimetic.initializers.config import MimeticAttention
from mimetic.models.build import build
from mimetic.models.config import Vit
from mimetic.models.vit import Attention as Own
from mimetic.plans.plan import Plan
from mimetic.plans.resolve import resolve
from mimetic.recipe.recipe import Arm
from mimetic.recipe.rule import Rule


def call(*words: object) -> Result:
    """Run a verb in this process."""
    return CliRunner().invoke(app, [str(word) for word in words])


NUMBERS = [
    Values(0.7, 0.7, 0.4, 0.4),
    Values(0.3, 0.9, 0.2, -0.5),
    Values(0.8, -0.2, 0.6, 0.1),
    Values(0.5, 0.0, 0.3, 0.0),
]


def rule(**arguments: object) -> dict[str, object]:
    """Return a recipe that initializes every attention."""
    init = {"type": "mimetic_attention", **arguments}
    return {"recipe": 1, "init": [{"id": "a", "match": {"kind": "attention"}, "init": init}]}


def vit(**sizes: int) -> nn.Module:
    """Return a small vision transformer of ours."""
    spec = Vit.model_validate({"width": 64, "depth": 3, "heads": 2, "patch_size": 16, **sizes})
    return build(spec, in_channels=3, num_classes=4, seed=0)


def grouped() -> nn.Module:
    """Return an attention of Llama's: four heads of queries, two of keys and values."""
    from transformers.models.llama.modeling_llama import LlamaAttention

    sizes = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 8, "num_hidden_layers": 1}
    config = transformers.LlamaConfig(**sizes, num_key_value_heads=2, attn_implementation="eager")
    return nn.Sequential(*(LlamaAttention(config, index) for index in range(3)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "ours": vit,
    "grouped": grouped,
    "timm": lambda: nn.Sequential(*(timm.layers.Attention(64, 4) for _ in range(3))),
    "torch": lambda: nn.MultiheadAttention(64, 8, kdim=40, vdim=40, batch_first=True),
}


@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_what_was_drawn_is_measured(name: str, numbers: Values) -> None:
    """α and β of both products come back within the sampling error of a layer, whatever the rank."""
    network = NETWORKS[name]()
    mimetic.initialize(network, rule(**numbers._asdict()), seed=1)
    for found in mimetic.harvest_attention(network).layers:
        for number in Values._fields:
            # A mean diagonal deviates by α/d in each draw; the rest is the simulation's.
            size = max(abs(getattr(numbers, n)) for n in Values._fields if n[:2] == number[:2])
            assert getattr(found, number) == pytest.approx(getattr(numbers, number), abs=0.06 * size)


def test_numbers_follow_depth() -> None:
    """Every layer has its own numbers; ours of another depth lie between them."""
    network = vit()
    for index, numbers in enumerate(NUMBERS[:3]):
        recipe = rule(**numbers._asdict())
        recipe["init"][0]["match"]["layer"] = rf"blocks\.{index}\.attn"  # type: ignore[index]
        mimetic.initialize(network, recipe, seed=2)
    found = mimetic.harvest_attention(network)
    assert [layer.layer for layer in found.layers] == [f"blocks.{i}.attn" for i in range(3)]
    for place, numbers in enumerate(NUMBERS[:3]):
        assert found.at(place / 2)[0] == pytest.approx(numbers, abs=0.06)
    middle, note = found.at(0.75)
    assert middle == pytest.approx([(a + b) / 2 for a, b in zip(*NUMBERS[1:3], strict=True)], abs=0.06)
    assert note == "depth 0.75 between blocks.1.attn and blocks.2.attn of VisionTransformer"


def hand_made() -> nn.Module:
    """Return a layer of width 4 and two heads of 2.

    Row-vector products: head 0 has diag(2, 6, 0, 0), head 1 a swap of coordinates 2 and 3; values and
    projection make −I of the first three coordinates.
    """
    layer = Own(4, 2)
    queries = torch.tensor([[1.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    keys = torch.tensor([[2.0, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])
    values = torch.eye(4)
    with torch.no_grad():
        layer.qkv.weight.copy_(torch.cat([queries, keys, values]))
        layer.proj.weight.copy_(torch.diag(torch.tensor([-1.0, -1, -1, 0])))
    return nn.Sequential(layer)


def test_spot_values() -> None:
    """Moments of a layer made by hand: traces 8 and 0, energies 40 and 2; −3 and 3."""
    (found,) = mimetic.harvest_attention(hand_made()).layers
    assert (found.heads, found.kv_heads, found.head_dim, found.width) == (2, 2, 2, 4)
    assert found.qk_mean == 1.0
    assert found.qk_scatter == pytest.approx(math.sqrt((21 - 4) / 4), rel=1e-5)
    assert found.qk_share == pytest.approx(16 / (2 * 21), rel=1e-5)
    assert found.vp_mean == -0.75
    assert found.vp_share == 0.75
    # The product of values and projection has full rank: α and β are its moments.
    assert (found.vp_diag, found.vp_noise) == pytest.approx((0.75, math.sqrt((3 - 4 * 0.5625) / 4)), rel=1e-5)


def statistics(*numbers: Values) -> AttentionStatistics:
    """Return statistics of layers with these numbers."""
    zeros = dict.fromkeys(("qk_mean", "qk_scatter", "qk_share", "vp_mean", "vp_scatter", "vp_share"), 0.0)
    layers = (LayerStatistics(f"l{i}", 2, 2, 8, 16, **n._asdict(), **zeros) for i, n in enumerate(numbers))
    return AttentionStatistics("a network", tuple(layers))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file of two layers' statistics."""
    path = tmp_path / "attention.safetensors"
    save_attention(path, statistics(NUMBERS[0], NUMBERS[1]))
    return path


def test_files_return_what_was_saved(file: Path) -> None:
    """Bit for bit."""
    assert load_attention(file) == statistics(NUMBERS[0], NUMBERS[1])


def test_a_plan_shows_the_numbers_of_each_layer(file: Path) -> None:
    """By depth; numbers of the section stay as given."""
    plan = mimetic.plan(vit(), rule(**{"from": {"file": str(file)}, "vp_diag": 0.25}))
    weights = [entry for entry in plan.entries if entry.parameter.endswith("qkv.weight")]
    shown = [Values(*(entry.arguments[name] for name in Values._fields)) for entry in weights]
    middle = [(a + b) / 2 for a, b in zip(NUMBERS[0], NUMBERS[1], strict=True)]
    for found, numbers in zip(shown, (NUMBERS[0], middle, NUMBERS[1]), strict=True):
        assert found == pytest.approx((*numbers[:3], 0.25))
    assert "depth 0.50 between l0 and l1 of file" in " ".join(weights[1].notes)


def test_drawing_equals_that_of_the_numbers(file: Path) -> None:
    """A number from a file or by hand makes the same weights."""
    save_attention(file, statistics(NUMBERS[1]))
    one, other = vit(), vit()
    mimetic.initialize(one, rule(**{"from": {"file": str(file)}}), seed=3)
    mimetic.initialize(other, rule(**NUMBERS[1]._asdict()), seed=3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def damage(path: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Write a file whose header is changed, with its digest."""
    save_attention(path, statistics(NUMBERS[0]))
    header = read_header(path, (ATTENTION,))
    change(header)
    save_header(path, header)


DAMAGES: dict[str, Callable[[dict], None]] = {
    "no layers": lambda h: h["layers"].clear(),
    "no number": lambda h: h["layers"]["l0"].pop("qk_noise"),
    "nan": lambda h: h["layers"]["l0"].update(qk_diag=math.nan),
    "below zero": lambda h: h["layers"]["l0"].update(vp_noise=-1.0),
    "no heads": lambda h: h["layers"]["l0"].update(heads=0),
    "a text": lambda h: h["layers"].update(l0="x"),
    "no origin": lambda h: h["about"].clear(),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_an_error(file: Path, name: str) -> None:
    """The error names the file."""
    damage(file, DAMAGES[name])
    with pytest.raises(UserError, match=file.name) as caught:
        load_attention(file)
    assert caught.value.code == "MIM-V238"


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ({"atlas": "convmixer-64-8-k7-p2-cifar10"}, "MIM-V236"),
        ({"atlas": "vit"}, "MIM-V301"),
        ({"file": "none.safetensors"}, "MIM-V234"),
        ({"tensors": "a.safetensors"}, "MIM-V220"),
        ({"file": "a", "atlas": "b"}, "MIM-V202"),
        ({"stage": "small"}, "MIM-R021"),
    ],
)
def test_wrong_sources_are_errors(source: dict[str, str], code: str) -> None:
    """Files of covariances, unknown names, weights without a network."""
    with pytest.raises(UserError) as caught:
        mimetic.plan(vit(), rule(**{"from": source}))
    issues = caught.value.issues if isinstance(caught.value, RecipeError) else [caught.value]
    assert code in {issue.code for issue in issues}


def test_covariances_are_not_taken_from_statistics(file: Path) -> None:
    """The error says what the file has not."""
    layer = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4))
    covariance = {"type": "file", "path": str(file), "kind": "depthwise_conv"}
    recipe = {"recipe": 1, "init": [{"match": {"kind": "depthwise_conv"}, "covariance": covariance}]}
    with pytest.raises(UserError, match="no covariances"):
        mimetic.plan(layer, recipe)


def network_of(model: nn.Module) -> TrainedNetwork:
    """Return a network as a trained one."""
    return TrainedNetwork("a network", find_sites(model), model)


def spoiled(value: float) -> nn.Module:
    """Return an attention with one weight of a value."""
    model = hand_made()
    with torch.no_grad():
        model[0].proj.weight[0, 0] = value  # type: ignore[index, union-attr]
    return model


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 4)), "MIM-I120"),
        (lambda: hand_made().to("meta"), "MIM-I121"),
        (lambda: spoiled(math.nan), "MIM-I122"),
    ],
)
def test_networks_that_cannot_be_measured(model: Callable[[], nn.Module], code: str) -> None:
    """Without attention, without values, without finite ones."""
    with pytest.raises(UserError) as caught:
        measure_attention(network_of(model()))
    assert caught.value.code == code


def test_a_zero_product_is_refused(file: Path) -> None:
    """Both of its maps would stay zero; a number by hand helps."""
    save_attention(file, statistics(Values(0.7, 0.7, 0.0, 0.0)))
    source = {"from": {"file": str(file)}}
    with pytest.raises(UserError) as caught:
        mimetic.plan(vit(), rule(**source))
    assert "MIM-I125" in str(caught.value) or caught.value.code == "MIM-I125"
    mimetic.plan(vit(), rule(**source, vp_noise=0.1))


def recipe_with_stage(folder: Path) -> Path:
    """Write a recipe whose arm takes its numbers from a stage."""
    init = {"type": "mimetic_attention", "from": {"stage": "teacher"}, "qk_diag": 0.5}
    teacher_init = {"type": "mimetic_attention", "vp_diag": -0.3}
    match = {"kind": "attention"}
    recipe = {
        "recipe": 1,
        "name": "attention",
        "model": {"type": "vit", "width": 16, "depth": 2, "heads": 2, "patch_size": 8, "image_size": 8},
        "data": {"type": "digits", "train_size": 64},
        "train": {"epochs": 0},
        "seeds": 1,
        "init": [{"id": "a", "match": match, "init": init}],
        "stages": {"teacher": {"model": {"depth": 3}, "init": [{"match": match, "init": teacher_init}]}},
    }
    path = folder / "r.yaml"
    path.write_text(json.dumps(recipe))
    return path


def test_a_network_is_measured_where_it_is_trained() -> None:
    """Before that a plan can be shown, but not applied; a network without attention is refused."""
    spec = MimeticAttention.model_validate(
        {"type": "mimetic_attention", "from": {"stage": "teacher"}, "vp_diag": -0.2}
    )
    init = {"id": "a", "match": {"kind": "attention"}, "init": spec}
    arm, student = Arm(init=(Rule.model_validate(init),)), vit(width=32)
    trained = network_of(vit())

    def planned(network: TrainedNetwork) -> Plan:
        return resolve(arm, find_sites(student), seed=0, harvests={harvest_key(spec): network})

    pending = planned(replace(trained, model=None))
    assert {entry.arguments["qk_diag"] for entry in pending.entries if entry.rule} == {"pending"}
    assert "of the attention of stage teacher" in str([entry.notes for entry in pending.entries])
    with pytest.raises(RunError) as caught:
        pending.apply(student)
    assert caught.value.code == "MIM-I124"
    found = planned(trained)
    measured = measure_attention(trained).layers
    weights = [entry for entry in found.entries if entry.parameter.endswith("qkv.weight")]
    assert [e.arguments["qk_noise"] for e in weights] == [layer.qk_noise for layer in measured]
    assert {entry.arguments["vp_diag"] for entry in weights} == {-0.2}
    found.apply(student)
    with pytest.raises(RecipeError, match="no attention"):
        planned(replace(network_of(nn.Sequential(nn.Linear(4, 4))), model=None))


@pytest.mark.slow
def test_a_stage_is_measured(tmp_path: Path) -> None:
    """Planned before it is trained, measured in the trial."""
    path = recipe_with_stage(tmp_path)
    planned = " ".join(call("plan", path).stdout.split())
    assert "qk_noise=pending, qk_diag=0.5" in planned
    assert "of the attention of stage teacher" in planned
    mimetic.run(path, root=tmp_path / "runs", offline=True, workers=1)
    (file,) = (tmp_path / "runs").glob("studies/*/*/*/seed-0/plan.json")
    entries = json.loads(file.read_text())["entries"]
    numbers = [entry["arguments"] for entry in entries if entry["parameter"].endswith("qkv.weight")]
    assert len(numbers) == 2
    for found in numbers:
        assert found["qk_diag"] == 0.5
        assert found["vp_diag"] == pytest.approx(-0.3, abs=0.1)


def test_the_command_line_measures_and_shows(tmp_path: Path) -> None:
    """`harvest --statistic attention` writes what `show` prints; other options are refused."""
    output, weights = tmp_path / "a.safetensors", tmp_path / "w.safetensors"
    save_file(vit(image_size=32).state_dict(), weights)
    recipe = tmp_path / "r.yaml"
    model = {"type": "vit", "width": 64, "depth": 3, "heads": 2, "patch_size": 16, "num_classes": 4}
    recipe.write_text(json.dumps({"recipe": 1, "model": model, "arms": {"default": {}}}))
    given = ("--recipe", recipe, "--checkpoint", weights, "--statistic", "attention", "-o", output)
    assert call("harvest", *given).exit_code == 0
    shown = call("show", output).stdout
    assert [row.split()[0] for row in shown.splitlines()[3:6]] == [f"blocks.{i}.attn" for i in range(3)]
    record = json.loads(call("show", output, "--json").stdout)
    assert record["layers"][2]["qk_noise"] == load_attention(output).layers[2].qk_noise
    refused = {
        "MIM-X142": ("show", output, "--fit", "v1"),
        "MIM-X125": ("harvest", *given, "--rank", "2"),
        "MIM-X124": ("harvest", "--tensors", weights, "--statistic", "attention", "-o", output),
    }
    for code, line in refused.items():
        result = call(*line)
        assert result.exit_code == 2
        assert code in result.output
