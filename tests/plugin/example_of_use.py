"""The plug-in's initializer in a training script."""

import torch

import mimetic

model = torch.nn.Sequential(torch.nn.Linear(64, 64))
rule = {"match": "0", "init": {"type": "laplace", "std": 0.05}}
plan = mimetic.initialize(model, {"recipe": 1, "init": [rule]}, seed=0)

assert plan.entries[0].initializer == "laplace"
assert 0.045 < float(model[0].weight.detach().std()) < 0.055
