"""Feature learning without backpropagation: RFM, ConvRFM, Deep ConvRFM and the fixed CNTK."""

from mimetic.kernels.agop import patch_agop
from mimetic.kernels.cntk import Tick, kernel, kernel_rows, no_tick
from mimetic.kernels.laplace import laplace, laplace_agop
from mimetic.kernels.learn import arithmetic, harvest, layers, prospect, rounds
from mimetic.kernels.outline import outline
from mimetic.kernels.patches import Architecture, Features
from mimetic.kernels.problem import Problem, problem
from mimetic.kernels.rounds import Round, selected, selection

__all__ = [
    "Architecture",
    "Features",
    "Problem",
    "Round",
    "Tick",
    "arithmetic",
    "harvest",
    "kernel",
    "kernel_rows",
    "laplace",
    "laplace_agop",
    "layers",
    "no_tick",
    "outline",
    "patch_agop",
    "problem",
    "prospect",
    "rounds",
    "selected",
    "selection",
]
