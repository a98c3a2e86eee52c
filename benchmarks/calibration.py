"""Measure false verdicts and the coverage of intervals on simulated studies.

`python -m benchmarks.calibration` prints the table of docs/comparison.md.
"""

import argparse
from dataclasses import dataclass

import numpy as np

from mimetic.metrics import Metric
from mimetic.study.comparing.comparison import answer
from mimetic.study.comparing.outcome import Comparison
from mimetic.study.comparing.questions import Facts, Options, Question
from mimetic.study.comparing.statistics import interquartile_mean

STUDIES = 2000

POPULATION = 200_000
"""Draws of each data set from which the true interquartile mean is computed."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is simulated: arms beside the baseline, seeds, data sets, and how data sets differ.

    On data set k an arm's true difference is `effects[k]`, and values scatter by `scatters[k]` around a value
    that all arms share, seed by seed.
    """

    arms: int
    seeds: int
    effects: tuple[float, ...] = (0.0,)
    scatters: tuple[float, ...] = (1.0,)

    @property
    def name(self) -> str:
        """Return the name in the table."""
        return f"{self.arms} | {self.seeds} | {len(self.effects)}"

    def study(self, rng: np.random.Generator) -> Comparison:
        """Return the comparison of a simulated study."""
        values: dict[str, dict[str, dict[int, float]]] = {}
        shared = rng.standard_normal((len(self.effects), self.seeds))
        for arm in range(self.arms + 1):
            for place, (effect, scatter) in enumerate(zip(self.effects, self.scatters, strict=True)):
                noise = scatter * rng.standard_normal(self.seeds) / 2**0.5
                drawn = 10.0 * place + shared[place] + noise + (effect if arm > 0 else 0.0)
                values.setdefault(str(arm), {})[str(place)] = dict(enumerate(drawn.tolist()))
        facts = {arm: Facts({"FINISHED": self.seeds * len(self.effects)}) for arm in values}
        question = Question(Metric("value", "higher"), values, facts)
        return answer([question], Options(metrics=("value",), baseline="0"))[0]

    def truth(self) -> float:
        """Return the true difference: over several data sets, the population's interquartile mean."""
        if len(self.effects) == 1:
            return self.effects[0]
        rng = np.random.default_rng(0)
        pairs = zip(self.effects, self.scatters, strict=True)
        drawn = [effect + scatter * rng.standard_normal(POPULATION) for effect, scatter in pairs]
        return float(interquartile_mean(np.concatenate(drawn)))


NULL = (
    Setting(1, 3),
    Setting(2, 3),
    Setting(11, 5),
    Setting(2, 3, (0.0,) * 3, (1.0,) * 3),
    Setting(4, 5, (0.0,) * 5, (0.5, 1.0, 1.0, 1.5, 2.0)),
)
"""Studies in which all arms are equal."""

EFFECTS = (
    Setting(1, 3, (0.5,)),
    Setting(1, 5, (0.5,)),
    Setting(1, 10, (0.5,)),
    Setting(1, 3, (0.5,) * 3, (1.0,) * 3),
    Setting(1, 5, (0.0, 0.5, 1.0), (1.0,) * 3),
    Setting(1, 5, (0.0, 0.5, 0.5, 1.0, 2.0), (0.5, 1.0, 1.0, 1.5, 2.0)),
    Setting(1, 10, (0.0, 0.5, 0.5, 1.0, 2.0), (0.5, 1.0, 1.0, 1.5, 2.0)),
)
"""Studies in which an arm is better, by as much on all data sets or not."""


def false_verdicts(setting: Setting, studies: int = STUDIES) -> float:
    """Return the share of studies with any better or worse."""
    rng = np.random.default_rng(20261130)
    return (
        sum(
            any(row.verdict in {"better", "worse"} for row in setting.study(rng).rows) for _ in range(studies)
        )
        / studies
    )


def coverage(setting: Setting, studies: int = STUDIES) -> float:
    """Return the share of intervals that contain the true difference."""
    rng, truth, hits = np.random.default_rng(20261130), setting.truth(), 0
    for _ in range(studies):
        for row in setting.study(rng).rows[1:]:
            assert row.difference is not None
            assert row.difference.low is not None
            assert row.difference.high is not None
            hits += row.difference.low <= truth <= row.difference.high
    return hits / studies / setting.arms


def main() -> None:
    """Print both tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=STUDIES)
    studies = parser.parse_args().studies
    header = "| arms beside the baseline | seeds | data sets |"
    print(f"{header} studies with a false verdict |\n|---:|---:|---:|---:|")
    for setting in NULL:
        print(f"| {setting.name} | {false_verdicts(setting, studies):.1%} |", flush=True)
    print(f"\n{header} coverage |\n|---:|---:|---:|---:|")
    for setting in EFFECTS:
        print(f"| {setting.name} | {coverage(setting, studies):.1%} |", flush=True)


if __name__ == "__main__":
    main()
