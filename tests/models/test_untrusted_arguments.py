"""No argument of a constructor that a recipe may set reaches outside the process."""

import inspect
from typing import Any

import pytest
import timm
import torchvision
from pydantic import TypeAdapter, ValidationError

from mimetic.config.errors import RecipeError
from mimetic.models.arguments import ConstructorArguments
from mimetic.models.build import build
from mimetic.models.config import Timm
from mimetic.recipe.load import load

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"cache_dir": "somewhere"}, "MIM-M010"),
    ({"pretrained_cfg": {"url": "x"}}, "MIM-M002"),
    ({"pretrained_cfg_overlay": {"hf_hub_id": "a/b"}}, "MIM-M002"),
    ({"act_layer": "hf-hub:a/b"}, "MIM-M010"),
    ({"extra": {"file": "x"}}, "MIM-M010"),
    ({"sizes": ["https://example.org/x"]}, "MIM-M010"),
    ({"checkpoint_path": "weights.pt"}, "MIM-M002"),
    ({"weights_backbone": "DEFAULT"}, "MIM-M002"),
    ({"pretrained": True}, "MIM-M002"),
    ({"num_classes": 5}, "MIM-M003"),
    ({"in_chans": 1}, "MIM-M003"),
]


@pytest.mark.parametrize(("arguments", "code"), REFUSED, ids=[next(iter(given)) for given, _ in REFUSED])
@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_refused(library: str, arguments: dict[str, Any], code: str) -> None:
    """When the recipe is validated, at the argument, of a model and of a source of covariances."""
    model = {"type": library, "name": "resnet18", "args": arguments}
    covariance = {"type": "filters", "from": {"model": model, "weights": "DEFAULT"}}
    rule = {"id": "f", "match": {"kind": "conv"}, "covariance": covariance}
    arms = {"a": {}, "b": {"init": [rule]}}
    recipe = {
        "recipe": 1,
        "name": "r",
        "model": model,
        "data": "digits",
        "train": {"epochs": 1},
        "arms": arms,
    }

    with pytest.raises(RecipeError) as caught:
        load(recipe)

    ends = ("args", next(iter(arguments)))
    found = [issue for issue in caught.value.issues if tuple(issue.path[-2:]) == ends]
    assert {issue.code for issue in found} == {code}
    assert any("covariance" in issue.path for issue in found)


def test_every_constructor_argument_that_names_a_place_is_refused() -> None:
    """Over the signatures of all models of both libraries; rates of stochastic depth stay allowed."""
    makers = [timm.create_model, *(timm.model_entrypoint(name) for name in timm.list_models())]
    makers += [torchvision.models.get_model_builder(n) for n in torchvision.models.list_models()]
    names = {name for make in makers for name in inspect.signature(make).parameters}
    places = ("cache_dir", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "weights")
    assert set(places) <= names | {"weights"}

    check = TypeAdapter(ConstructorArguments).validate_python
    refused = set()
    for name in names:
        try:
            check({name: "value"})
        except ValidationError:
            refused.add(name)

    assert refused >= set(places) & names
    assert not any(name.startswith(("drop", "num_c", "embed")) for name in refused - {"num_classes"})
    assert build(Timm(name="resnet18", args={"drop_path_rate": 0.1}), in_channels=3, num_classes=2, meta=True)
