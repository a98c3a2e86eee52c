"""List the measurements, run one of them or the set for a GPU, or write docs/performance.md.

    python -m benchmarks                        # the list
    python -m benchmarks throughput --help      # its options
    python -m benchmarks throughput --dry       # a tiny case, for tests
    python -m benchmarks --gpu [--dry]          # the set for one GPU, at most eight minutes
    python -m benchmarks docs [--check]         # docs/performance.md from the results

A result is printed as Markdown and written as JSON to `benchmarks/results/NAME.json`, or to `--out`. What
`--dry` measures says nothing: it goes to `build/benchmarks/`.
"""

import argparse
import shlex
import signal
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu, initialization, kernels, many, page, startup, store, training, trials
from benchmarks.frameworks import frameworks
from benchmarks.harvest import harvest
from benchmarks.measurement import DRY_RESULTS, RESULTS, Measurement, surroundings

MEASUREMENTS = {
    entry.name: entry
    for entry in (
        training.throughput,
        training.ceiling,
        training.inputs,
        frameworks,
        initialization.planning,
        initialization.initialization,
        initialization.attention,
        harvest,
        kernels.kernels,
        trials.rates,
        trials.costs,
        trials.tracking,
        many.many,
        gpu.slots,
        store.store,
        startup.startup,
    )
}


def main() -> int:
    """Do what the command line says; return the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves every `finally`
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.name == "docs":
        return page.write(check=arguments.check)
    if arguments.name is not None:
        return _run(MEASUREMENTS[arguments.name], vars(arguments))
    if arguments.gpu:
        folder = (DRY_RESULTS if arguments.dry else RESULTS) / "gpu"
        return gpu.run_set(dry=arguments.dry, folder=arguments.out or folder)
    for name, entry in MEASUREMENTS.items():
        print(f"{name:<16}{entry.takes:>8}  {entry.description}")
    return 0


def _run(entry: Measurement, arguments: dict[str, Any]) -> int:
    """Run one measurement, print its result and write it."""
    given = {f.name: arguments[f.name] for f in fields(entry.options) if f.name in arguments}
    options = entry.options(**{**(entry.dry if arguments["dry"] else {}), **given})
    torch.set_num_threads(options.threads)
    result = entry.run(options)
    machine, environment = surroundings(options)
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    result = replace(result, machine=machine, environment=environment, command=command)
    print(result.markdown())
    folder = DRY_RESULTS if arguments["dry"] else RESULTS
    result.write(arguments["out"] or folder / f"{entry.name}.json")
    return 1 if result.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpu", action="store_true", help="run the set for one GPU")
    parser.add_argument("--dry", action="store_true", help="run the set in tiny sizes on a CPU")
    parser.add_argument("--out", type=Path, help="folder of the set's results")
    names = parser.add_subparsers(dest="name", metavar="NAME")
    for name, entry in MEASUREMENTS.items():
        _add_options(names.add_parser(name, help=entry.description, description=entry.run.__doc__), entry)
    docs = names.add_parser("docs", help="write docs/performance.md from the results")
    docs.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is not current")
    return parser


def _add_options(parser: argparse.ArgumentParser, entry: Measurement) -> None:
    """Add the fields of a measurement's options as flags; without a value they are absent."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--dry", action="store_true", help="a tiny case, for tests")
    parser.add_argument("--out", type=Path, help=f"file of the result; benchmarks/results/{entry.name}.json")
    for field in fields(entry.options):
        default = field.default
        flag = f"--{field.name.replace('_', '-')}"
        text = f"{field.metadata['help']} (default: {default})".strip()
        many = isinstance(default, tuple)
        parser.add_argument(
            flag,
            help=text.replace("%", "%%"),
            default=argparse.SUPPRESS,
            type=type(default[0] if many else default),
            nargs="+" if many else None,
            choices=field.metadata["choices"] or None,
        )


if __name__ == "__main__":
    sys.exit(main())
