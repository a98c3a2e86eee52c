"""The `--model` option."""

import pytest

from mimetic.errors import UserError
from mimetic.models.config import (
    CifarResNet,
    ConvMixer,
    Model,
    PythonModel,
    Timm,
    Torchvision,
    parse_model_argument,
)


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
    ("text", "code"),
    [
        ("convmixr", "MIM-M040"),
        ("zzz", "MIM-M040"),
        ("timm", "MIM-M042"),
        ("torchvision:", "MIM-M042"),
        ("convmixer:3", "MIM-M041"),
        ("python:nowhere", "MIM-M043"),
    ],
)
def test_mistakes(text: str, code: str) -> None:
    """Each mistake names the option and the repair."""
    with pytest.raises(UserError, check=lambda error: error.code == code):
        parse_model_argument(text)
