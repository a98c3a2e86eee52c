"""Measurements of speed and memory: `python -m benchmarks` lists them and runs any of them.

`measurement.py` is the mechanism, each other module a few measurements; `page.py` writes docs/performance.md
from the results in `results/`.
"""
