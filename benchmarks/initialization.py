"""How long a large vision transformer takes to initialize, beside PyTorch's own construction of it.

    python benchmarks/initialization.py [--model vit_large_patch16_224] [--threads 2] [--rounds 3]
    python benchmarks/initialization.py --attention [--model vit_base_patch16_224] [--threads 2] [--rounds 1]

Both in one process, in turn, as a ratio of the fastest rounds: a busy machine slows both. Construction draws
every weight by the model's own laws; applying a plan draws them from named streams, writes them into the
constructed model and verifies their moments. With `--attention`, mimetic attention alone, in seconds.
"""

import argparse

import timm
import torch
from common import parser, timed

from mimetic.graph.sites import find_sites
from mimetic.plans.resolve import resolve
from mimetic.recipe.load import load

RULES = {
    "trunc_normal": {"type": "trunc_normal", "std": 0.02},
    "normal": {"type": "normal", "std": 0.02},
    "xavier_uniform": {"type": "xavier_uniform"},
    "kaiming_normal": {"type": "kaiming_normal"},
}


def univariate(asked: argparse.Namespace) -> None:
    """Print how long each law takes, beside construction."""
    with torch.device("meta"):
        graph = find_sites(timm.create_model(asked.model))
    plans = {}
    for name, init in RULES.items():
        weights = {"id": "weights", "match": {"kind": "linear"}, "init": init}
        biases = {"id": "biases", "match": {"kind": "linear", "param": "bias"}, "init": "zeros"}
        arm = load({"recipe": 1, "name": "bench", "init": [weights, biases]}).arms["main"]
        plans[name] = resolve(arm, graph, seed=0)
    construct, apply = [], {name: [] for name in plans}
    for _ in range(asked.rounds):
        model = None  # one such model at a time
        seconds, model = timed(lambda: timm.create_model(asked.model))
        construct.append(seconds)
        for name, plan in plans.items():
            apply[name].append(timed(lambda plan=plan, model=model: plan.apply(model))[0])
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{asked.model}: {count / 1e6:.0f} M parameters, {said(asked)}")
    print(f"construct {min(construct):.2f} s")
    for name, seconds in apply.items():
        print(f"{name:15} {min(seconds):.2f} s, {min(seconds) / min(construct):.2f} of construction")


def attention(asked: argparse.Namespace) -> None:
    """Print how long mimetic attention takes: planned, drawn, written and checked."""
    rule = {"id": "attention", "match": {"kind": "attention"}, "init": "mimetic_attention"}
    arm = load({"recipe": 1, "name": "bench", "init": [rule]}).arms["main"]
    model = timm.create_model(asked.model)
    rounds = []
    for _ in range(asked.rounds):
        planned, plan = timed(lambda: resolve(arm, find_sites(model), seed=0))
        drawn, _ = timed(lambda plan=plan: plan.apply(model))
        rounds.append((planned + drawn, planned))
    whole, planned = min(rounds)
    sites = [site for site in find_sites(model).composites if site.kind == "attention"]
    heads = sum(site.structure.heads for site in sites)
    print(f"{asked.model}: mimetic attention in {len(sites)} layers, {heads} heads, {said(asked)}")
    print(f"{whole:.1f} s, of which {planned:.1f} s are the plan")


def said(asked: argparse.Namespace) -> str:
    """Return how it was timed."""
    return f"{asked.threads} threads, fastest of {asked.rounds}"


def main() -> None:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--model", help="model of timm; unless given, a large one, with --attention a base")
    options.add_argument("--threads", type=int, default=2, help="threads of torch")
    options.add_argument("--rounds", type=int, default=3, help="how often each is timed")
    options.add_argument("--attention", action="store_true", help="time mimetic attention instead")
    asked = options.parse_args()
    if asked.model is None:
        asked.model = f"vit_{'base' if asked.attention else 'large'}_patch16_224"
    torch.set_num_threads(asked.threads)
    (attention if asked.attention else univariate)(asked)


if __name__ == "__main__":
    main()
