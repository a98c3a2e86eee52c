"""The reference Mamba: other people's layers with the same weights give the same, and its initialization."""

import pytest
import torch
from torch import nn

from mimetic.config.errors import RecipeError
from mimetic.models.build import build
from mimetic.models.config import Mamba
from mimetic.models.mamba import Mixer1, Mixer2
from mimetic.recipe.load import load
from mimetic.streams import generator


def _built(version: int) -> nn.Module:
    section = Mamba(version=version, dim=16, depth=2, state=4, head_dim=8)
    return build(section, in_channels=7, num_classes=7, seed=0)


def _theirs(version: int) -> nn.Module:
    pytest.importorskip("transformers")
    if version == 1:
        from transformers import MambaConfig
        from transformers.models.mamba.modeling_mamba import MambaMixer

        return MambaMixer(MambaConfig(hidden_size=16, state_size=4, num_hidden_layers=1), layer_idx=0)
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    config = Mamba2Config(
        hidden_size=16, state_size=4, num_hidden_layers=1, n_groups=1, num_heads=4, head_dim=8, chunk_size=8
    )
    return Mamba2Mixer(config, layer_idx=0)


@pytest.mark.parametrize("version", [1, 2])
def test_the_layer_is_that_of_transformers(version: int) -> None:
    """With the same weights under the same names, both give the same features."""
    ours = _built(version).get_submodule("blocks.0.mixer")
    theirs = _theirs(version).eval()
    theirs.load_state_dict(ours.state_dict())
    features = torch.randn(2, 11, 16, generator=generator("features"))

    with torch.no_grad():
        expected, actual = theirs(features), ours(features)

    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("version", [1, 2])
def test_no_token_sees_those_after_it(version: int) -> None:
    """Changing a token changes no logit before it, and some from it on."""
    model = _built(version)
    tokens = torch.randint(0, 7, (2, 9), generator=generator("tokens"))
    other = tokens.clone()
    other[:, 5] = (other[:, 5] + 1) % 7

    with torch.no_grad():
        difference = (model(tokens) - model(other)).abs().amax((0, 2))

    assert bool((difference[:5] == 0).all())
    assert bool((difference[5:] > 0).all())


def test_published_initialization_of_mamba() -> None:
    """A = -(1, …, S), D = 1, Δ in [0.001, 0.1], and the way out is smaller by √depth."""
    model = _built(1)
    mixer = model.get_submodule("blocks.0.mixer")
    assert isinstance(mixer, Mixer1)

    torch.testing.assert_close(mixer.A_log.detach().exp(), torch.arange(1.0, 5.0).expand(32, 4))
    assert bool((mixer.D == 1).all())
    step = nn.functional.softplus(mixer.dt_proj.bias.detach())
    assert 0.000999 < float(step.min()) < float(step.max()) < 0.1001
    assert float(mixer.out_proj.weight.detach().abs().max()) <= (32 * 2) ** -0.5


def test_published_initialization_of_mamba_2() -> None:
    """-A lies in [1, 16], Δ in [0.001, 0.1], and D = 1."""
    mixer = _built(2).get_submodule("blocks.1.mixer")
    assert isinstance(mixer, Mixer2)

    size = mixer.A_log.detach().exp()
    assert 1.0 <= float(size.min()) < float(size.max()) <= 16.001
    step = nn.functional.softplus(mixer.dt_bias.detach())
    assert 0.000999 < float(step.min()) < float(step.max()) < 0.1001
    assert bool((mixer.D == 1).all())


def test_heads_divide_the_channels() -> None:
    """A head size that does not fit is a mistake of the recipe, told with its place."""
    with pytest.raises(RecipeError, match="do not divide into heads of 24"):
        load({"recipe": 1, "name": "r", "model": {"type": "mamba", "dim": 20, "head_dim": 24}})
