"""Strings to be copied."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from mimetic.data.config import Copying
from mimetic.data.dataset import IGNORED, Tokens
from mimetic.data.load import describe_dataset, load_dataset


@given(st.integers(1, 5), st.integers(0, 4), st.integers(1, 6))
def test_what_is_asked_is_the_string(shortest: int, more: int, letters: int) -> None:
    """Sequences read begin, string, separator, string, end …; the copy's letters alone are asked for."""
    spec = Copying(letters=letters, lengths=(shortest, shortest + more), test_lengths=(3,), train_size=8)
    data = load_dataset(spec)
    assert isinstance(data.train, Tokens)

    begin, separator, end = letters, letters + 1, letters + 2
    for tokens, labels in zip(data.train.tokens_NL.tolist(), data.train.labels_NL.tolist(), strict=True):
        at = tokens.index(separator)
        string = tokens[1:at]
        assert shortest <= len(string) <= shortest + more
        assert all(letter < letters for letter in string)
        filled = [begin, *string, separator, *string]
        assert tokens == (filled + [end] * len(tokens))[: len(tokens)]
        num_targets = [label for label in labels if label != IGNORED]
        assert num_targets == string
        assert labels[at : at + len(string)] == string
    assert data.shape == describe_dataset(spec)


def test_splits_and_probes_differ_and_depend_on_the_seed() -> None:
    """Validation, test and each length have strings of their own; the same seed gives the same ones."""
    spec = Copying(lengths=(4, 4), test_lengths=(4, 8), train_size=20, val_size=10, test_size=10)
    data, again, other = (
        load_dataset(spec),
        load_dataset(spec),
        load_dataset(spec.model_copy(update={"split_seed": 1})),
    )

    assert list(data.splits()) == [
        ("val", ""),
        ("test", ""),
        ("test", "len4"),
        ("test", "len8"),
        ("val", "len4"),
        ("val", "len8"),
    ]
    assert data.digest == again.digest != other.digest
    assert not torch.equal(data.train.inputs[:10], data.splits()["val", ""].inputs)
    assert data.splits()["test", "len8"].num_targets() == 80
    assert data.train.num_targets(torch.arange(5)) == 20
