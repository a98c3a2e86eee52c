"""Images per second of `mimetic.train` against a bare loop written by hand.

    python benchmarks/throughput.py                          # ConvMixer-64/6 and CIFAR-ResNet-20
    python benchmarks/throughput.py --model convmixer --dim 128 --depth 4 --batch 128 --windows 21

Both train the same model on the same resident bytes with crop, flip, AdamW and one-cycle, in one process and
in turns: ours, bare, bare, ours, … Each pair gives a ratio, and the median of the ratios does not care what
else the machine was doing. The bare loop keeps no metrics, no journal, no keyed streams and no checkpoints.
Exit code 1 if a ratio falls below --least.
"""

import argparse
import statistics
import sys

import torch
from common import keep_freed_memory, loop_parser, quartiles
from loops import CLASSES, bare, models, ours, random_pictures

from mimetic.models.build import build
from mimetic.models.config import Model
from mimetic.train.devices import pick_device


def main() -> int:
    """Measure, print the table, and say whether it is good enough."""
    options = _options()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as workers do; for every loop of this process
    device = pick_device(options.device)
    print(f"torch {torch.__version__}, {device}, {options.threads} thread(s), batch {options.batch}")
    print(f"{'model':<24}{'mimetic':>12}{'bare':>12}{'ratio':>9}{'quartiles':>18}{'epoch end':>12}")
    ratios = [_compare(name, spec, options, device) for name, spec in models(options).items()]
    return 0 if min(ratios) >= options.least else 1


def _compare(name: str, spec: Model, options: argparse.Namespace, device: torch.device) -> float:
    """Print one line of the table: medians in images per second, and the paired ratio."""
    dataset = random_pictures(options.batch * options.steps)
    model = build(spec, in_channels=3, num_classes=CLASSES, seed=0)
    ours_of, bare_of = ours(model, dataset, options), bare(model, dataset, options, device)
    ours_of(), bare_of()  # warm up: allocator, autotuning
    speeds, others, closing = [], [], []
    for number in range(options.windows):
        if number % 2:  # so that neither always comes second
            speed, rest = ours_of()
            others.append(bare_of())
        else:
            others.append(bare_of())
            speed, rest = ours_of()
        speeds.append(speed)
        closing.append(rest)
    ratios = [one / other for one, other in zip(speeds, others, strict=True)]
    low, ratio, high = quartiles(ratios)
    medians = statistics.median(speeds), statistics.median(others)
    spread = f"{low:.3f} … {high:.3f}"
    end = f"{1e3 * statistics.median(closing):.1f} ms"
    print(f"{name:<24}{medians[0]:>12.1f}{medians[1]:>12.1f}{ratio:>9.3f}{spread:>18}{end:>12}")
    return ratio


def _options() -> argparse.Namespace:
    parser = loop_parser(__doc__, dim=64, depth=6, patch=4, steps=10, windows=15, device="cpu")
    parser.add_argument("--least", type=float, default=0.97, help="smallest ratio that passes")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
