"""The plug-in's initializer in a training script."""

import torch
from scipy import stats

import mimetic

model = torch.nn.Sequential(torch.nn.Linear(64, 64))
rule = {"match": "0", "init": {"type": "laplace", "std": 0.05}}
plan = mimetic.initialize(model, {"recipe": 1, "init": [rule]}, seed=0)

assert plan.entries[0].initializer == "laplace"
values = model[0].weight.detach().flatten().double()
assert stats.kstest(values, stats.laplace(scale=0.05 / 2**0.5).cdf).pvalue > 1e-3
