"""The options that name a network to be measured and the images it is shown; see `subject`."""

from pathlib import Path
from typing import Annotated

import typer

Network = Annotated[
    str | None, typer.Option("--model", metavar="SOURCE:NAME", help="The network, e.g. timm:convnext_tiny.")
]
RecipeFile = Annotated[
    Path | None,
    typer.Option("--recipe", metavar="FILE", help="Take model and data from a recipe instead."),
]
RecipeArm = Annotated[str | None, typer.Option("--arm", metavar="NAME", help="Arm of that recipe.")]
Checkpoint = Annotated[
    Path | None,
    typer.Option("--checkpoint", metavar="FILE", help="Its weights: safetensors or a PyTorch state dict."),
]
Weights = Annotated[
    str | None,
    typer.Option("--weights", metavar="NAME", help="Or published ones of torchvision or timm, e.g. DEFAULT."),
]
DataType = Annotated[
    str | None, typer.Option("--data", metavar="TYPE", help="Images the network is shown, e.g. cifar10.")
]
DataFolder = Annotated[
    str | None, typer.Option("--path", metavar="FOLDER", help="Folder of `--data image_folder`.")
]
ImageSize = Annotated[
    int | None, typer.Option("--image-size", metavar="PIXELS", min=1, help="Resize images to this side.")
]
Mean = Annotated[
    str | None, typer.Option("--mean", metavar="R,G,B", help="Normalize by this mean instead of the data's.")
]
Std = Annotated[str | None, typer.Option("--std", metavar="R,G,B", help="And by this standard deviation.")]
Classes = Annotated[
    int | None,
    typer.Option("--classes", metavar="COUNT", min=1, help="Its outputs; the data's unless given."),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kind", metavar="KIND", help="Kind of layers, e.g. conv; may be repeated; all unless given."
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")]
