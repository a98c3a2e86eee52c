"""Microseconds per image for crop, flip and normalize: ours beside a DataLoader over PIL pictures.

    python benchmarks/inputs.py [--threads 1]

In turns within one process, on one core: `decode(augment(bytes))` of whole batches, and a DataLoader without
workers over PIL pictures with torchvision's transforms, as tutorials have it. On a CPU the clock is that of
the process, which does not count what others compute; on a GPU it is the wall's.
"""

import statistics
import sys
import time

import torch
from common import head, parser, quartiles, row
from frameworks import loader
from loops import MEAN, PADDING, STD, random_pictures, wait

from mimetic.data.augment import augmenter
from mimetic.data.config import Crop, Flip
from mimetic.train.batches import decoder
from mimetic.train.devices import pick_device


def main() -> int:
    """Measure and print one line."""
    arguments = parser(__doc__)
    arguments.add_argument("--batch", type=int, default=128)
    arguments.add_argument("--batches", type=int, default=8)
    arguments.add_argument("--windows", type=int, default=15)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--device", default="auto")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    dataset = random_pictures(options.batch * options.batches)
    pixels_NCHW = dataset.train.pixels_NCHW.to(device)
    augmented = augmenter((Crop(padding=PADDING), Flip()), mean=MEAN)
    decode = decoder(MEAN, STD, device=device, channels_last=True)
    draws = torch.Generator(device)
    tutorial = loader(dataset, options.batch)

    clock = time.process_time if device.type == "cpu" else time.perf_counter

    def ours() -> float:
        wait(device)
        began = clock()
        for chosen in torch.randperm(len(pixels_NCHW)).to(device).split(options.batch):
            decode(augmented(pixels_NCHW.index_select(0, chosen), draws))
        wait(device)
        return (clock() - began) / len(pixels_NCHW)

    def theirs() -> float:
        began = clock()
        for images, _ in tutorial:
            images.to(device).contiguous(memory_format=torch.channels_last)
        wait(device)
        return (clock() - began) / len(pixels_NCHW)

    ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(options.windows)]
    low, ratio, high = quartiles(b / a for a, b in pairs)
    mine, other = (1e6 * statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"torch {torch.__version__}, {device}, {options.threads} thread(s), batch {options.batch}")
    head("ours µs/image", "PIL DataLoader µs/image", "median ratio", "quartiles", words=0)
    row(f"{mine:.1f}", f"{other:.1f}", f"{ratio:.1f}", f"{low:.1f} – {high:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
