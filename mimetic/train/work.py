"""What there is to train: a network that holds its initial values, and everything its training needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from mimetic.config.registry import Component
from mimetic.data.dataset import Dataset
from mimetic.journal import Journal, NullJournal
from mimetic.train.config import Train
from mimetic.train.figures import Observe
from mimetic.train.loop import train
from mimetic.train.outcome import Outcome
from mimetic.train.profiling import Profiler
from mimetic.train.ranks import Ranks
from mimetic.train.stopping import Stop


@dataclass(frozen=True, slots=True)
class Work:
    """The arguments of `train`, but for who trains and who may stop it."""

    model: nn.Module
    dataset: Dataset
    spec: Train
    seed: int
    journal: Journal | NullJournal
    folder: Path
    plan_hash: str
    augment: Sequence[Component]
    frozen: Mapping[str, str]
    held: Sequence[str]
    facts: Mapping[str, object]
    observe: Observe | None
    profiler: Profiler | None

    def alone(self, stop: Stop, ranks: Ranks) -> Outcome:
        """Train by itself, or go on where it stopped."""
        return train(
            self.model,
            self.dataset,
            self.spec,
            seed=self.seed,
            journal=self.journal,
            folder=self.folder,
            plan_hash=self.plan_hash,
            augment=self.augment,
            frozen=self.frozen,
            held=self.held,
            facts=self.facts,
            resume=True,
            stop=stop,
            observe=self.observe,
            ranks=ranks,
            profiler=self.profiler,
        )
