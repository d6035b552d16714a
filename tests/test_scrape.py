"""The server's own counters: read right, or refused by name."""

import subprocess
import sys
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_joules.errors import LoadError
from pytest_joules.load.scrape import Sampler, gauges, server_sample
from tests.fakes.openai_server import running

# Two engines of one server, as vLLM writes them; most lines are not needed.
TWO_ENGINES = """\
# HELP python_info Python platform information
# TYPE python_info gauge
python_info{implementation="CPython",version="3.11.7"} 1.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a {b} c"} 5.0
vllm:num_requests_running{engine="1",model_name="a {b} c"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 900.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.25
vllm:num_preemptions_total{engine="0",model_name="m"} 1.0
vllm:num_preemptions_created{engine="0",model_name="m"} 1.7e+09
vllm:prompt_tokens_total{engine="0",model_name="m"} 1e+03
vllm:prompt_tokens_total{engine="1",model_name="m"} 24.0
vllm:prompt_tokens_cached_total{engine="0",model_name="m"} 900.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 2.5e+06
vllm:generation_tokens_total{engine="1",model_name="m"} 7.0
vllm:generation_tokens_created{engine="0",model_name="m"} 1.7e+09
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 10.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 20.0
vllm:request_success_total{engine="1",finished_reason="abort",model_name="m"} 3.0
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="m"} 90.0
vllm:iteration_tokens_total_bucket{engine="0",le="+Inf",model_name="m"} 100.0
vllm:iteration_tokens_total_count{engine="0",model_name="m"} 100.0
vllm:iteration_tokens_total_sum{engine="0",model_name="m"} 900.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="m"} 1.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 38.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 900.0
"""


def test_counters_of_all_engines_are_added_and_shares_averaged() -> None:
    sample = server_sample(TWO_ENGINES, time_s=12.5, took_s=0.004)

    assert (sample.time_s, sample.took_s) == (12.5, 0.004)
    assert (sample.running, sample.waiting) == (8, 2)
    assert (sample.output_tokens, sample.prompt_tokens) == (2_500_007, 1_024)
    assert (sample.first_tokens, sample.finished) == (38, 33)
    assert (sample.steps, sample.preemptions) == (100, 1)
    assert sample.kv_cache_usage == 0.375


@pytest.mark.parametrize(
    "name",
    [
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:generation_tokens_total",
        "vllm:prompt_tokens_total",
        "vllm:time_to_first_token_seconds_count",
        "vllm:request_success_total",
    ],
)
def test_a_missing_counter_is_named(name: str) -> None:
    text = "\n".join(
        line for line in TWO_ENGINES.splitlines() if not line.startswith(name + "{")
    )

    with pytest.raises(LoadError, match=f"has no {name}:"):
        server_sample(text, time_s=0, took_s=0)


def test_counters_that_older_servers_lack_are_unknown_not_zero() -> None:
    optional = ("vllm:iteration", "vllm:kv_cache", "vllm:num_preemptions")
    text = "\n".join(line for line in TWO_ENGINES.splitlines() if not line.startswith(optional))

    sample = server_sample(text, time_s=0, took_s=0)

    assert (sample.steps, sample.kv_cache_usage, sample.preemptions) == (None, None, None)


@given(st.integers(0, 2**53), st.integers(0, 4096))
def test_values_are_exact_as_long_as_floats_are(tokens: int, in_flight: int) -> None:
    values = {
        "num_requests_running": in_flight,
        "num_requests_waiting": 0,
        "generation_tokens_total": tokens,
        "prompt_tokens_total": 0,
        "time_to_first_token_seconds_count": 0,
        "request_success_total": 0,
    }
    text = "\n".join(f"vllm:{name} {float(value)!r}" for name, value in values.items())

    sample = server_sample(text, time_s=0, took_s=0)

    assert (sample.output_tokens, sample.running) == (tokens, in_flight)


def test_an_answer_that_is_no_metrics_is_refused() -> None:
    with pytest.raises(LoadError, match="is no vLLM"):
        server_sample("<html>not found</html>", time_s=0, took_s=0)


def test_one_answer_takes_its_time_into_account() -> None:
    with running() as server:
        sampler = Sampler.of("127.0.0.1", server.port, api_key="secret", counters="vllm")
        sample = sampler.sample()
        sampler.page.close()

    assert sample["took_s"] > 0
    assert sample["finished"] == 0


def test_another_status_is_refused() -> None:
    with running(metrics_status=503) as server:
        sampler = Sampler.of("127.0.0.1", server.port, api_key="secret", counters="vllm")
        with pytest.raises(LoadError, match="answered 503"):
            sampler.sample()
        sampler.page.close()


SGLANG = """\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="m",tp_rank="0",dp_rank="0"} 5.0
sglang:num_running_reqs{model_name="m",tp_rank="0",dp_rank="1"} 4.0
sglang:num_queue_reqs{model_name="m",dp_rank="0"} 2.0
sglang:token_usage{model_name="m",dp_rank="0"} 0.25
sglang:token_usage{model_name="m",dp_rank="1"} 0.75
sglang:generation_tokens_total{model_name="m"} 900.0
"""


def test_sglang_tells_the_batch_and_its_token_counters_are_left_alone() -> None:
    assert gauges(SGLANG, time_s=2.0, took_s=0.1) == {
        "time_s": 2.0,
        "took_s": 0.1,
        "running": 9.0,
        "waiting": 2.0,
        "kv_cache_usage": 0.5,
    }
    with pytest.raises(LoadError, match="has no sglang:num_queue_reqs"):
        gauges(SGLANG.replace("num_queue", "num_other"), time_s=0, took_s=0)


@pytest.mark.parametrize(
    "line",
    [
        'vllm:num_requests_running{engine="0} 1.0',
        'vllm:num_requests_running{engine="0"} 1.0.0',
        "vllm:num_requests_running",
        "vllm:num_requests_running{",
    ],
)
def test_metrics_that_cannot_be_parsed_are_refused_in_words(line: str) -> None:
    with pytest.raises(LoadError, match=r"/metrics cannot be read .*num_requests_running"):
        server_sample(line, time_s=0, took_s=0)


def test_a_line_seen_before_is_read_as_the_first_time_whatever_its_value() -> None:
    """Its name and labels are remembered; odd numbers and times of day go to the parser."""
    head = 'vllm:num_requests_waiting{engine="9",model_name="seen before"}'
    for value, expected in (
        ("3.0", 3.0),
        ("3", 3),
        ("1.5e+06", 1.5e6),
        ("-1", -1),
        ("+Inf", inf),
    ):
        text = f"{TWO_ENGINES}{head} {value}\n"
        assert server_sample(text, time_s=0, took_s=0).waiting == 2 + expected
    for wrong in ("1_0", "1.0.0", "3.0 x", "²"):
        with pytest.raises(LoadError, match="cannot be read"):
            server_sample(f"{TWO_ENGINES}{head} {wrong}\n", time_s=0, took_s=0)
    stamped = f"{TWO_ENGINES}{head} 3.0 1700000000000\n"
    assert server_sample(stamped, time_s=0, took_s=0).waiting == 5
    assert server_sample(stamped.replace("000\n", "999\n"), time_s=0, took_s=0).waiting == 5


STOPPED = """
import signal
from pytest_joules.load import scrape

scrape.PERIOD_S = 1e-6
for number in range(3000):
    stop = scrape._Stop()
    signal.signal(signal.SIGALRM, stop.ask)
    signal.setitimer(signal.ITIMER_REAL, 1e-5 * (1 + number % 10))
    for _ in scrape._ticks(stop):
        pass
"""


def test_a_signal_ends_the_sampling_at_whatever_moment_it_comes() -> None:
    """With an event it did not always: the handler waited for its own thread's lock."""
    subprocess.run([sys.executable, "-c", STOPPED], check=True, timeout=60)
