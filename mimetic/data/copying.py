"""Copying: a string of random letters, a separator, and the same string, which the network must write.

The task of "Repeat After Me: Transformers are Better than State Space Models at Copying" (Jelassi et al.,
arXiv 2402.01032), on which "Mimetic Initialization Helps State Space Models Learn to Recall" (arXiv
2410.11135) measures how far beyond the lengths of training a network copies.
"""

import torch
from torch import Tensor

from mimetic.data.config import Copying
from mimetic.data.dataset import IGNORED, Dataset, Tokens, TokenShape, digest
from mimetic.data.load import describe_dataset, load_dataset
from mimetic.streams import generator

_MARKS = 3


@load_dataset.register
def copying(spec: Copying) -> Dataset:
    """Return strings to copy; every split is drawn under a key of its own.

    A sequence is begin, x₁ … xₙ, separator, x₁ … xₙ, end, filled up with ends. Letters are 0, …,
    letters - 1, drawn independently and uniformly; begin, separator and end follow them. Asked is each
    letter of the copy, at the token before it.
    """
    train = _strings(spec, spec.train_size, "train", spec.lengths)
    kinds = {"test": spec.test_size} | ({"val": spec.val_size} if spec.val_size else {})
    own = {kind: _strings(spec, count, kind, spec.lengths) for kind, count in kinds.items()}
    probes = {
        (kind, f"len{length}"): _strings(spec, count, kind, (length, length))
        for kind, count in kinds.items()
        for length in spec.test_lengths
    }
    val, test = own.get("val"), own["test"]
    return Dataset(
        name=spec.type_name(),
        train=train,
        val=val,
        test=test,
        num_classes=spec.letters + _MARKS,
        mean=(),
        std=(),
        digest=digest(train, val, test, *probes.values()),
        probes=probes,
    )


@describe_dataset.register
def shape(spec: Copying) -> TokenShape:
    """Return the alphabet with its marks, and the length of the longest sequence trained on."""
    tokens = spec.letters + _MARKS
    return TokenShape(tokens, 2 * spec.lengths[1] + 2, tokens)


def _strings(spec: Copying, count: int, split: str, lengths: tuple[int, int]) -> Tokens:
    """Draw strings of lengths between two bounds, both included."""
    shortest, longest = lengths
    draws = generator("copying", spec.split_seed, split, spec.letters, shortest, longest)
    length_N1 = torch.randint(shortest, longest + 1, (count, 1), generator=draws)
    letters_NM = torch.randint(spec.letters, (count, longest), generator=draws)
    sequence_NL = _written(letters_NM, length_N1, spec.letters)
    # Token l is read, token l + 1 is asked for: from the separator on, but for the end.
    place_L = torch.arange(sequence_NL.shape[1] - 1)
    asked_NL = (place_L > length_N1) & (place_L <= 2 * length_N1)
    return Tokens(sequence_NL[:, :-1].contiguous(), torch.where(asked_NL, sequence_NL[:, 1:], IGNORED))


def _written(letters_NM: Tensor, length_N1: Tensor, letters: int) -> Tensor:
    """Write begin, string, separator, string, ends: (N, 2M + 3)."""
    begin, separator, end = range(letters, letters + _MARKS)
    place_L = torch.arange(2 * letters_NM.shape[1] + 3)
    first_NL = (place_L >= 1) & (place_L <= length_N1)
    second_NL = (place_L >= length_N1 + 2) & (place_L <= 2 * length_N1 + 1)
    index_NL = torch.where(first_NL, place_L - 1, torch.where(second_NL, place_L - length_N1 - 2, 0))
    marks_NL = torch.where(place_L == length_N1 + 1, separator, torch.where(place_L == 0, begin, end))
    return torch.where(first_NL | second_NL, letters_NM.gather(1, index_NL), marks_NL)
