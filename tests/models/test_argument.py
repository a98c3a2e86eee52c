"""The `--model` option."""

import pytest

from mimetic.errors import UserError
from mimetic.models.argument import parse_model_argument
from mimetic.models.config import CifarResNet, ConvMixer, Model, PythonModel, Timm, Torchvision


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("convmixer", ConvMixer()),
        ("cifar_resnet", CifarResNet()),
        ("timm:convmixer_768_32", Timm(name="convmixer_768_32")),
        ("torchvision:resnet18", Torchvision(name="resnet18")),
        ("python:package.module:function", PythonModel(call="package.module:function")),
    ],
)
def test_names(text: str, expected: Model) -> None:
    """A type with its defaults, or a library and a name."""
    actual = parse_model_argument(text)

    assert expected == actual


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("convmixr", "no model type `convmixr`; did you mean `convmixer`"),
        ("zzz", "no model type `zzz`; types: `convmixer`"),
        ("timm", "`timm` needs a name, e.g. `timm:convmixer_768_32`"),
        ("torchvision:", "`torchvision` needs a name"),
        ("convmixer:3", "takes nothing after a colon"),
        ("python:nowhere", "`call`: String should match pattern"),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    """Each mistake names the option and the repair."""
    with pytest.raises(UserError, match=message):
        parse_model_argument(text)
