"""Building, looking and starting again give the same model."""

from hashlib import blake2b

import pytest
import torch
from torch import nn

from mimetic.config.registry import registered
from mimetic.models import config as recipe
from mimetic.models.build import build, reinitialize
from mimetic.models.config import Model

SECTIONS = [section for section in registered("model").values() if section.reads is not None]
"""Every registered model, plug-ins' included, but for the user's own code."""

SPECS = [
    *(section.model_validate(section.example) for section in SECTIONS),
    recipe.Vgg11(width=1, head="classic", batch_norm=False),
]
NAMES = [f"{i}-{spec.type_name()}" for i, spec in enumerate(SPECS)]


def made(spec: Model, seed: int = 0) -> nn.Module:
    """Build a model for grey images of four classes."""
    return build(spec, in_channels=1, num_classes=4, seed=seed)


def inputs(spec: Model, channels: int) -> torch.Tensor:
    """Return two images or two sequences of tokens."""
    return (
        torch.zeros(2, channels, 64, 64) if spec.reads == "images" else torch.zeros(2, 5, dtype=torch.int64)
    )


def positions(spec: Model) -> tuple[int, ...]:
    """Return the sides of the logits between batch and classes."""
    return () if spec.reads == "images" else (5,)


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_same_seed_same_bits(spec: Model) -> None:
    """Two builds are equal, another seed differs, and torch's global stream is left alone."""
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, second, other = made(spec), made(spec), made(spec, seed=1)

    assert torch.equal(expected, torch.rand(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_reinitialize_is_build(spec: Model) -> None:
    """A trained, frozen, channels-last model comes back bit for bit, in the same tensors."""
    model = made(spec, seed=5).to(memory_format=torch.channels_last).requires_grad_(False)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(2)
    places = [tensor.data_ptr() for tensor in model.state_dict().values()]
    fresh = made(spec)

    reinitialize(model, spec, in_channels=1, num_classes=4, seed=0)

    theirs, ours = fresh.state_dict(), model.state_dict()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    assert places == [tensor.data_ptr() for tensor in ours.values()]
    assert [p.requires_grad for p in fresh.parameters()] == [p.requires_grad for p in model.parameters()]


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_meta_has_the_same_names_and_shapes(spec: Model) -> None:
    """What is looked at is what is built, without values."""
    expected = {name: tuple(value.shape) for name, value in made(spec).state_dict().items()}

    looked = build(spec, in_channels=1, num_classes=4, meta=True)

    assert expected == {name: tuple(value.shape) for name, value in looked.state_dict().items()}
    assert {parameter.device.type for parameter in looked.parameters()} == {"meta"}


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_logits(spec: Model) -> None:
    """Every model maps inputs to one logit per class, and the section overrides the classes."""
    overriding = spec.model_copy(update={"num_classes": 7, "in_channels": 2})

    assert made(spec).eval()(inputs(spec, 1)).shape == (2, *positions(spec), 4)
    assert made(overriding).eval()(inputs(spec, 2)).shape == (2, *positions(spec), 7)


def test_golden_bits() -> None:
    """The initial weights of a ConvMixer are these; a change here makes recorded studies unrepeatable."""
    model = made(recipe.ConvMixer(dim=8, depth=2, kernel_size=3))
    digest = blake2b(digest_size=8)
    for parameter in model.parameters():
        digest.update(parameter.detach().numpy())
    expected = "ce9e2f82ace35355"

    actual = digest.hexdigest()

    assert expected == actual


def test_reinitialize_refuses_another_model() -> None:
    """A model of other shapes is not overwritten silently."""
    model = made(recipe.CifarResNet(depth=8, width=2))

    with pytest.raises(ValueError, match=r"`conv1.weight` has shape"):
        reinitialize(model, recipe.CifarResNet(depth=8, width=3), in_channels=1, num_classes=4, seed=0)
