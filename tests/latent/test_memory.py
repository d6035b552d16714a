"""What a plan says of memory."""

import pytest

from pytest_joules import Point
from pytest_joules.latent.machine import machine
from pytest_joules.latent.memory import shortage

LARGE = Point(model="Qwen/Qwen3-235B-A22B-Instruct-2507", batch_size=8)
SMALL = Point(model="Qwen/Qwen3-8B", batch_size=1)


def test_weights_larger_than_the_memory_are_told():
    """235e9 parameters of 2 bytes are 438 GiB; an H200 has 141 GB, eight have 1,128."""
    (text,) = shortage([LARGE], "h200")

    assert "no room for a request in the memory of 1 x h200" in text
    assert shortage([LARGE.but(num_gpus=8)], "h200") == []


def test_the_largest_batch_that_fits_is_not_told_and_the_next_is():
    fits = machine(SMALL, "h200").max_batch_size()

    assert shortage([SMALL.but(batch_size=fits)], "h200") == []
    (text,) = shortage([SMALL, SMALL.but(batch_size=fits + 1)], "h200")
    assert text.startswith(f"batch {fits + 1}: by estimate about {fits} fit")


@pytest.mark.parametrize(("model", "gpu"), [("a/b", "h200"), ("Qwen/Qwen3-8B", "gt-9")])
def test_what_the_catalog_does_not_describe_is_not_judged(model, gpu):
    assert shortage([Point(model=model, batch_size=4096)], gpu) == []
