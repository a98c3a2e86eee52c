"""Copying task: a random string, a separator, and the same string, which the network must predict.

The task of "Repeat After Me: Transformers are Better than State Space Models at Copying" (Jelassi et al.,
arXiv 2402.01032), on which "Mimetic Initialization Helps State Space Models Learn to Recall" (arXiv
2410.11135) measures how far a network copies beyond its training lengths.

Shapes: N sequences, L tokens, M letters.
"""

import torch
from torch import Tensor

from mimetic.data.config import Copying
from mimetic.data.dataset import IGNORED, Dataset, Tokens, digest
from mimetic.streams import generator


def copying(spec: Copying) -> Dataset:
    """Return strings to copy; each split has its own random stream.

    A sequence is start, x₁ … xₙ, separator, x₁ … xₙ, end, padded with ends. Letters are the tokens 0, …,
    letters - 1, independent and uniform; start, separator and end are the next three tokens. The targets
    are the letters of the copy, each at the token before it.
    """
    train = _strings(spec, spec.train_size, "train", spec.lengths)
    kinds = {"test": spec.test_size} | ({"val": spec.val_size} if spec.val_size else {})
    splits = {kind: _strings(spec, count, kind, spec.lengths) for kind, count in kinds.items()}
    probes = {
        (kind, f"len{length}"): _strings(spec, count, kind, (length, length))
        for kind, count in kinds.items()
        for length in spec.test_lengths
    }
    val, test = splits.get("val"), splits["test"]
    return Dataset(
        name=spec.type_name(),
        train=train,
        val=val,
        test=test,
        num_classes=spec.vocabulary,
        mean=(),
        std=(),
        digest=digest(train, val, test, *probes.values()),
        probes=probes,
    )


def _strings(spec: Copying, count: int, split: str, lengths: tuple[int, int]) -> Tokens:
    """Draw strings whose lengths are uniform between two bounds, both inclusive."""
    shortest, longest = lengths
    draws = generator("copying", spec.split_seed, split, spec.letters, shortest, longest)
    length_N1 = torch.randint(shortest, longest + 1, (count, 1), generator=draws)
    letters_NM = torch.randint(spec.letters, (count, longest), generator=draws)
    sequence_NL = _sequences(letters_NM, length_N1, spec.letters)
    # The target of token l is token l + 1, from the separator up to the last letter.
    position_L = torch.arange(sequence_NL.shape[1] - 1)
    has_target_NL = (position_L > length_N1) & (position_L <= 2 * length_N1)
    return Tokens(sequence_NL[:, :-1].contiguous(), torch.where(has_target_NL, sequence_NL[:, 1:], IGNORED))


def _sequences(letters_NM: Tensor, length_N1: Tensor, letters: int) -> Tensor:
    """Return start, string, separator, string, ends as (N, 2M + 3)."""
    start, separator, end = range(letters, letters + 3)
    position_L = torch.arange(2 * letters_NM.shape[1] + 3)
    first_NL = (position_L >= 1) & (position_L <= length_N1)
    second_NL = (position_L >= length_N1 + 2) & (position_L <= 2 * length_N1 + 1)
    index_NL = torch.where(first_NL, position_L - 1, torch.where(second_NL, position_L - length_N1 - 2, 0))
    special_NL = torch.where(position_L == length_N1 + 1, separator, torch.where(position_L == 0, start, end))
    return torch.where(first_NL | second_NL, letters_NM.gather(1, index_NL), special_NL)
