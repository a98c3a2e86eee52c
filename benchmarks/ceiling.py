"""Images per second of one trial end to end, and what share of the device's arithmetic they use.

    python benchmarks/ceiling.py                                       # a ConvMixer-256/8, some steps
    python benchmarks/ceiling.py --device cuda --images 50000 --epochs 25 --batch 512

Training is `mimetic.train` with crop, flip, AdamW and one-cycle; end to end takes in what is kept, and the
evaluation of a fifth as many images before training and after each epoch. The ceiling is what products of
matrices reach on this device in the same arithmetic (bf16 on a GPU that has it, float32 on a CPU), in the
same process, before and after; of both the higher one counts. An image takes three times the operations of
its forward pass, which PyTorch counts: backward takes two.
"""

import argparse
import sys
import time

import torch
from common import convmixer_parser, head, keep_freed_memory, row, timed
from loops import CLASSES, convmixer, ours, random_pictures, wait
from torch.utils.flop_counter import FlopCounterMode

from mimetic.models.build import build
from mimetic.models.config import Model
from mimetic.train.devices import pick_device, pick_precision, set_arithmetic

SIDE = {"cpu": 2048, "cuda": 8192}
REPEATS = 10
GIGA = 1e9


def operations(spec: Model) -> int:
    """Return the floating-point operations of training on one image; a multiplication with its sum is two."""
    model = build(spec, in_channels=3, num_classes=CLASSES, seed=0).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    return 3 * counter.get_total_flops()


def ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Return operations per second of large matrix products, the fastest of some."""
    side = SIDE.get(device.type, 4096)
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

    def product() -> None:
        left @ right
        wait(device)

    product()
    return 2 * side**3 / min(timed(product)[0] for _ in range(REPEATS))


def main() -> int:
    """Measure and print the table."""
    options = _options()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    device = pick_device(options.device)
    precision = pick_precision("auto", device)
    set_arithmetic(precision, device)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    spec = convmixer(options)
    dataset = random_pictures(options.images, held_out=options.images // 5)
    model = build(spec, in_channels=3, num_classes=CLASSES, seed=0)
    window = ours(model, dataset, options, epochs=options.epochs)

    before = ceiling(device, dtype)
    began = time.perf_counter()
    speed, _ = window()
    whole = options.images * options.epochs / (time.perf_counter() - began)
    best = max(before, ceiling(device, dtype))

    each = operations(spec)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{options.threads} thread(s)"
    print(f"torch {torch.__version__}, {name}, {precision}, batch {options.batch}")
    print(f"{options.images} images × {options.epochs} epochs, {each / GIGA:.2f} Gflop an image")
    print(f"matrix products reach {best / GIGA:.0f} Gflop/s\n")
    head("ConvMixer", "images/s of the steps", "share of the ceiling", "images/s end to end", "share")
    shares = [f"{rate * each / best:.1%}" for rate in (speed, whole)]
    row(f"{options.dim}/{options.depth}", f"{speed:.0f}", shares[0], f"{whole:.0f}", shares[1])
    return 0


def _options() -> argparse.Namespace:
    found = convmixer_parser(__doc__, dim=256, depth=8, kernel=9, patch=2, device="auto")
    found.add_argument("--images", type=int, default=512, help="images per epoch")
    found.add_argument("--epochs", type=int, default=1)
    return found.parse_args()


if __name__ == "__main__":
    sys.exit(main())
