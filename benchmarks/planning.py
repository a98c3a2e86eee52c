"""How long planning and initializing take, from small networks to large ones.

    python benchmarks/planning.py [--largest 1e8]

Planning runs on the meta device and allocates no weights. Initializing draws every weight of the network;
it stands beside PyTorch's own construction of the same network, in the same process, as a ratio.
"""

import torch
from common import parser, timed
from torch import nn

from mimetic.graph.sites import find_sites
from mimetic.plans.resolve import resolve
from mimetic.recipe.load import load

RULES = [
    {
        "id": "weights",
        "match": {"kind": "linear"},
        "init": {"type": "kaiming_normal", "nonlinearity": "relu"},
    },
    {"id": "biases", "match": {"kind": "linear", "param": "bias"}, "init": "zeros"},
]


def tower(width: int, depth: int) -> nn.Module:
    """Return a stack of square linear layers."""
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))


def main() -> None:
    """Measure and print the table."""
    options = parser(__doc__)
    options.add_argument("--largest", type=float, default=1e8, help="largest number of weights")
    largest = options.parse_args().largest
    torch.set_num_threads(1)
    arm = load({"recipe": 1, "name": "bench", "init": RULES}).arms["main"]
    sizes = [(100, 10), (300, 11), (1000, 10), (1000, 100), (3162, 100), (4, 10_000)]
    print("| weights | layers | sites s | resolve s | initialize s | construct s | initialize / construct |")
    print("|--------:|-------:|--------:|----------:|-------------:|------------:|-----------------------:|")
    for width, depth in sizes:
        count = width * width * depth
        if count > largest:
            continue
        with torch.device("meta"):
            model = tower(width, depth)
        example = torch.empty(2, width, device="meta")
        sites, graph = timed(lambda model=model, example=example: find_sites(model, example))
        planning, plan = timed(lambda graph=graph: resolve(arm, graph, seed=0))
        construct, real = timed(lambda width=width, depth=depth: tower(width, depth))
        applying, _ = timed(lambda plan=plan, real=real: plan.apply(real))
        print(
            f"| {count:7.0e} | {depth:6d} | {sites:7.3f} | {planning:9.3f} | {applying:12.3f} "
            f"| {construct:11.3f} | {applying / construct:22.2f} |"
        )


if __name__ == "__main__":
    main()
