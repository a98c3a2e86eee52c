"""`default`: what the layer's own reset draws, on a copy, whatever the live layer is."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mimetic import initialize
from mimetic.errors import UserError
from mimetic.models.build import build
from mimetic.models.config import ConvMixer, Model, PlainCnn, Vit

SPECS = [
    PlainCnn(widths=(8, 8)),
    ConvMixer(),
    Vit(width=24, depth=1, heads=4, patch_size=4, image_size=16),
]


@pytest.mark.parametrize("spec", SPECS)
def test_values_are_those_of_the_models_own_initialization(spec: Model) -> None:
    """`init: default` on every parameter of a built-in model changes none of them, bit for bit."""
    model = build(spec, in_channels=3, num_classes=5, seed=4)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    rules = [{"id": "all", "match": {"param": ".*"}, "init": "default"}]
    initialize(model, {"recipe": 1, "init": rules}, seed=4)
    assert {name: torch.equal(expected[name], tensor) for name, tensor in model.state_dict().items()} == (
        dict.fromkeys(expected, True)
    )


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(200, 300, device="meta"),
        nn.Linear(200, 300, dtype=torch.bfloat16),
        nn.Linear(200, 300, dtype=torch.float64),
    ],
    ids=["meta", "bfloat16", "float64"],
)
def test_device_and_dtype_of_the_live_layer_do_not_matter(make: SimpleNamespace, layer: nn.Module) -> None:
    """A layer on the meta device or in bfloat16 draws the same float32 values."""
    found = make.resolve(make.rule(init="default"), make.linear(), ("weight", "bias"))
    expected = found.sample(make.keyed(), nn.Linear(200, 300))
    drawn = found.sample(make.keyed(), layer)
    assert torch.equal(expected["weight"], drawn["weight"])
    assert torch.equal(expected["bias"], drawn["bias"])
    assert drawn["weight"].dtype == torch.float32


def test_norms_begin_at_one_and_zero_and_keep_their_statistics(make: SimpleNamespace) -> None:
    """A norm's default is ones and zeros; its running statistics are not reset."""
    layer = nn.BatchNorm2d(64)
    layer.running_mean.fill_(3.0)
    with torch.no_grad():
        layer.weight.fill_(5.0)
    drawn = make.resolve(make.rule(init="default"), make.norm(), ("weight", "bias")).sample(
        make.keyed(), layer
    )
    assert torch.equal(torch.ones(64), drawn["weight"])
    assert torch.equal(torch.zeros(64), drawn["bias"])
    assert torch.equal(torch.full((64,), 3.0), layer.running_mean)
    assert torch.equal(torch.full((64,), 5.0), layer.weight)


def test_attention_has_a_private_reset(make: SimpleNamespace) -> None:
    """`nn.MultiheadAttention` resets its fused projection by `_reset_parameters`."""
    layer = nn.MultiheadAttention(8, 2)
    site = make.site("other", None, in_proj_weight=(24, 8), in_proj_bias=(24,))
    drawn = make.resolve(make.rule(init="default"), site, ("in_proj_weight", "in_proj_bias")).sample(
        make.keyed(), layer
    )
    bound = (6 / (24 + 8)) ** 0.5
    assert 0.8 * bound < float(drawn["in_proj_weight"].abs().max()) <= bound
    assert torch.count_nonzero(drawn["in_proj_bias"]) == 0


def test_embeddings_keep_their_padding_row_zero(make: SimpleNamespace) -> None:
    """The row of the padding index is zero, the others are normal."""
    site = make.site("embedding", None, weight=(50, 8))
    layer = nn.Embedding(50, 8, padding_idx=3)
    weight = make.resolve(make.rule(init="default"), site, ("weight",)).sample(make.keyed(), layer)["weight"]
    assert torch.count_nonzero(weight[3]) == 0
    assert float(weight.std()) == pytest.approx(1.0, abs=0.15)


def test_layers_without_reset_are_refused(make: SimpleNamespace) -> None:
    """A layer without a reset is an error, with the repair."""

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

    site = make.site("other", None, weight=(4,))
    with pytest.raises(UserError, match=r"blocks\.1: a Scale has no `reset_parameters`.*init: keep"):
        make.resolve(make.rule(init="default"), site, ("weight",)).sample(make.keyed(), Scale())


def test_a_reset_that_forgets_a_parameter_is_refused(make: SimpleNamespace) -> None:
    """Nobody gets uninitialized memory: what a reset leaves unset is an error."""

    class Forgetful(nn.Linear):
        def reset_parameters(self) -> None:
            nn.init.ones_(self.weight)

    found = make.resolve(make.rule(init="default"), make.linear(), ("bias",))
    with pytest.raises(UserError, match="Forgetful does not set all of `bias`"):
        found.sample(make.keyed(), Forgetful(200, 300))


def test_default_is_the_class_s_and_keep_the_model_s() -> None:
    """The two names differ where a model initializes its layers otherwise; both are documented."""
    model = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2), "conv": nn.Conv2d(16, 16, 3)})
    nn.init.kaiming_normal_(
        model["conv"].weight, mode="fan_out", nonlinearity="relu"
    )  # as torchvision's ResNet
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    match = {"layer": r"conv|attn\.out_proj", "param": ".*"}

    initialize(model, {"init": [{"match": match, "init": "keep"}]})
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())

    initialize(model, {"init": [{"match": match, "init": "default"}]})
    bound = 8**-0.5
    assert own["attn.out_proj.bias"].abs().max() == 0.0
    assert 0.0 < model["attn"].out_proj.bias.abs().max() <= bound
    ratio = own["conv.weight"].std() / model["conv"].weight.std()
    assert ratio.item() == pytest.approx(6**0.5, rel=0.1)
