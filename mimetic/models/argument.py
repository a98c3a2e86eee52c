"""Models as the command line names them: `convmixer`, `timm:convmixer_768_32`, `torchvision:resnet18`."""

from difflib import get_close_matches

from pydantic import ValidationError

from mimetic.config.registry import registered
from mimetic.errors import UserError
from mimetic.models.config import Model

_AFTER_COLON = {"cifar_resnet_lc": "name", "timm": "name", "torchvision": "name", "python": "call"}


def parse_model_argument(text: str) -> Model:
    """Return the model section that `--model TEXT` stands for.

    `TEXT` is a registered type with its defaults (`convmixer`), or a library and a name in it
    (`timm:convmixer_768_32`, `torchvision:resnet18`, `python:package.module:function`).

    Raises:
        UserError: If there is no such type, or a name is missing.
    """
    kind, _, name = text.partition(":")
    types = registered("model")
    if kind not in types:
        close = get_close_matches(kind, types, n=1)
        hint = f"did you mean `{close[0]}`? " if close else ""
        choices = ", ".join(f"`{choice}`" for choice in types)
        raise UserError(f"--model: there is no model type `{kind}`; {hint}types: {choices}")
    field = _AFTER_COLON.get(kind)
    if name and field is None:
        raise UserError(f"--model: `{kind}` takes nothing after a colon, got `{text}`; write `{kind}`")
    if not name and field is not None:
        raise UserError(f"--model: `{kind}` needs a name, e.g. `{_EXAMPLES[kind]}`")
    try:
        section = types[kind].model_validate({} if field is None else {field: name})
    except ValidationError as error:
        details = "; ".join(f"`{detail['loc'][-1]}`: {detail['msg']}" for detail in error.errors())
        raise UserError(f"--model: `{text}` does not describe a model: {details}") from error
    if not isinstance(section, Model):
        raise TypeError(f"{type(section).__name__} is registered as a model but is none")
    return section


_EXAMPLES = {
    "cifar_resnet_lc": "cifar_resnet_lc:ResNet-LC-20-16x8",
    "timm": "timm:convmixer_768_32",
    "torchvision": "torchvision:resnet18",
    "python": "python:package.module:function",
}
