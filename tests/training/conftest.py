"""Fixtures of the trainings' tests."""

from collections.abc import Iterator

import pytest
import torch
from small import few_scenes_and_samples


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are taken in the same order only with the same number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def quick_ends() -> Iterator[None]:
    with few_scenes_and_samples():
        yield
