"""No argument of a constructor that a recipe may set reaches outside the process."""

import inspect

import pytest
import timm
import torchvision

from mimetic.errors import UserError
from mimetic.models.build import build
from mimetic.models.config import Timm
from mimetic.models.published import check_arguments, load_published

OUTSIDE = [
    {"cache_dir": "somewhere"},
    {"pretrained_cfg": {"url": "x"}},
    {"pretrained_cfg_overlay": {"hf_hub_id": "a/b"}},
    {"checkpoint_path": "weights.pt"},
    {"weights_backbone": "DEFAULT"},
    {"act_layer": "hf-hub:a/b"},
    {"extra": {"file": "x"}},
    {"sizes": ["https://example.org/x"]},
]


@pytest.mark.parametrize("arguments", OUTSIDE, ids=lambda a: next(iter(a)))
def test_refused(arguments: dict[str, object]) -> None:
    """Before a constructor is called, whether the model is built or its weights are loaded."""
    spec = Timm(name="resnet18", args=arguments)

    with pytest.raises(UserError) as built:
        build(spec, in_channels=3, num_classes=10, meta=True)
    with pytest.raises(UserError) as loaded:
        load_published(
            build(Timm(name="resnet18"), in_channels=3, num_classes=1000, meta=True), spec, "DEFAULT"
        )

    assert built.value.code in {"MIM-M002", "MIM-M010"}
    assert loaded.value.code == built.value.code


def test_every_constructor_argument_that_names_a_place_is_refused() -> None:
    """Over the signatures of all models of both libraries; rates of stochastic depth stay allowed."""
    makers = [timm.create_model, *(timm.model_entrypoint(name) for name in timm.list_models())]
    makers += [torchvision.models.get_model_builder(n) for n in torchvision.models.list_models()]
    names = {name for make in makers for name in inspect.signature(make).parameters}
    places = ("cache_dir", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "weights")
    assert set(places) <= names | {"weights"}

    refused = set()
    for name in names:
        try:
            check_arguments("x", {name: "value"})
        except UserError as error:
            refused |= {name} if error.code != "MIM-M003" else set()

    assert refused >= set(places) & names
    assert not any(name.startswith(("drop", "num_", "in_", "embed")) for name in refused)
