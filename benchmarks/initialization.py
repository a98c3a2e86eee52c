"""How long a large vision transformer takes to initialize, beside PyTorch's own construction of it.

    python benchmarks/initialization.py [--model vit_large_patch16_224] [--threads 2] [--rounds 3]

Both in one process, in turn, as a ratio of the fastest rounds: a busy machine slows both. Construction draws
every weight by the model's own laws; applying a plan draws them from named streams, writes them into the
constructed model and verifies their moments.
"""

import argparse
import time
from collections.abc import Callable

import timm
import torch

from mimetic.graph import find_sites
from mimetic.plan import resolve
from mimetic.recipe import load

RULES = {
    "trunc_normal": {"type": "trunc_normal", "std": 0.02},
    "normal": {"type": "normal", "std": 0.02},
    "xavier_uniform": {"type": "xavier_uniform"},
    "kaiming_normal": {"type": "kaiming_normal"},
}


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Return the wall seconds of some work, and what it returns."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_large_patch16_224", help="model of timm")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
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
    print(
        f"{asked.model}: {count / 1e6:.0f} M parameters, {asked.threads} threads, fastest of {asked.rounds}"
    )
    print(f"construct {min(construct):.2f} s")
    for name, seconds in apply.items():
        print(f"{name:15} {min(seconds):.2f} s, {min(seconds) / min(construct):.2f} of construction")


if __name__ == "__main__":
    main()
