"""Every fault that a test injects, with what a user gets: the table of ``docs/faults.md``.

``tests/test_faults_page.py`` holds page and table together, and each row to its test: the
codes and errors that a row names must stand in the test, or in the table that it is
parametrized with.
"""

from typing import NamedTuple


class Fault(NamedTuple):
    """One row."""

    what: str
    outcome: str
    """What a user gets; errors and reason codes in backticks."""

    test: str
    """File and function, and where it is one of several, the name of its case."""


SERVER = (
    Fault(
        "starts slowly",
        "waited for, as long as the stack's `deadline` allows",
        "tests/test_server_faults.py::test_a_server_that_starts_slowly_is_waited_for",
    ),
    Fault(
        "never becomes ready",
        "`LaunchError` that names the deadline and where to raise it",
        "tests/test_vllm.py::test_the_deadline_of_the_stack_is_kept_and_named",
    ),
    Fault(
        "crashes while loading",
        "`LaunchError` with its code, its first error as the cause, and the end of its log",
        "tests/test_vllm.py::test_a_server_that_is_not_as_asked_is_a_launch_error[dies]",
    ),
    Fault(
        "runs out of GPU memory while loading",
        "`LaunchError` with the cause and a hint on memory",
        "tests/test_server_faults.py::test_a_server_that_does_not_start[oom-while-loading]",
    ),
    Fault(
        "is killed while loading, as by the kernel's out-of-memory killer",
        "`LaunchError` that names the signal and says to look in `dmesg`",
        "tests/test_server_faults.py::test_a_server_that_does_not_start[killed-while-loading]",
    ),
    Fault(
        "serves another model",
        "`LaunchError` that names both",
        "tests/test_vllm.py::test_a_server_that_is_not_as_asked_is_a_launch_error[other]",
    ),
    Fault(
        "tells its models in another form than OpenAI's",
        "`LaunchError` with the answer",
        "tests/test_vllm.py::test_a_server_that_is_not_as_asked_is_a_launch_error[models-of-lists]",
    ),
    Fault(
        "finds its port taken once",
        "started again on another port, unnoticed",
        "tests/test_vllm.py::test_a_port_that_was_taken_in_the_meantime_is_tried_again",
    ),
    Fault(
        "finds every port taken",
        "`LaunchError` after three attempts",
        "tests/test_vllm.py::test_a_port_that_is_always_taken_is_given_up",
    ),
    Fault(
        "crashes in the window",
        "`ServerDied` with its code, cause and log; nothing is measured of it",
        "tests/test_server_faults.py::test_a_server_that_dies_under_load[crash]",
    ),
    Fault(
        "is killed in the window",
        "`ServerDied` that names the signal, with a hint on memory",
        "tests/test_server_faults.py::test_a_server_that_dies_under_load[killed]",
    ),
    Fault(
        "runs out of GPU memory in the window, while its API answers on",
        "`ServerDied` with the cause",
        "tests/test_server_faults.py::test_a_server_that_dies_under_load[out-of-memory]",
    ),
    Fault(
        "hangs: healthy, but no tokens",
        "`LoadError` after 300 s without a token, not after the load's deadline",
        "tests/test_server_faults.py::test_what_ends_a_load[hang]",
    ),
    Fault(
        "answers some requests with 500",
        "invalid: `request-failed` with the number and the first error",
        "tests/test_server_faults.py::test_what_makes_a_measurement_invalid[some-500]",
    ),
    Fault(
        "answers all requests with 500",
        "`LoadError` as soon as a batch of them failed one after the other",
        "tests/test_server_faults.py::test_what_ends_a_load[every-500]",
    ),
    Fault(
        "drops some connections",
        "invalid: `request-failed`; no request is sent twice",
        "tests/test_server_faults.py::test_what_makes_a_measurement_invalid[some-dropped]",
    ),
    Fault(
        "drops all connections",
        "`LoadError`, as with 500",
        "tests/test_server_faults.py::test_what_ends_a_load[every-dropped]",
    ),
    Fault(
        "streams malformed events",
        "invalid: `request-failed`",
        "tests/test_server_faults.py::test_what_makes_a_measurement_invalid[malformed-sse]",
    ),
    Fault(
        "tells malformed metrics",
        "`LoadError` with the line that cannot be read",
        "tests/test_server_faults.py::test_what_ends_a_load[malformed-metrics]",
    ),
    Fault(
        "tells no metrics any more",
        "`LoadError` that names the missing counters",
        "tests/test_server_faults.py::test_what_ends_a_load[no-metrics]",
    ),
    Fault(
        "tells metrics that something before it has kept for some seconds",
        "invalid: `scrape-slow`, for they leave out answers that have come",
        "tests/test_assess.py::test_what_was_once_called_valid[kept-metrics]",
    ),
    Fault(
        "preempts requests, and keeps its batch",
        "measured, with the note `preempted`",
        "tests/test_server_faults.py::test_what_a_measurement_survives[some-preemptions]",
    ),
    Fault(
        "preempts so many that the batch falls below 85 %",
        "invalid: `batch-starved`, with the number of preemptions",
        "tests/test_server_faults.py::test_what_makes_a_measurement_invalid[preemption-storm]",
    ),
    Fault(
        "floods its log",
        "measured; the log keeps its last 64 MiB",
        "tests/test_server_faults.py::test_what_a_measurement_survives[log-flood]",
    ),
    Fault(
        "leaves zombie children",
        "measured; nothing is left after the launch",
        "tests/test_server_faults.py::test_what_a_measurement_survives[zombies]",
    ),
)

METER = (
    Fault(
        "energy counter not supported",
        "`MeterError` before anything starts",
        "tests/test_faults.py::test_a_fault_before_measuring",
    ),
    Fault(
        "GPU lost before the launch, or no permission to read it",
        "`MeterError` with the remedy",
        "tests/test_faults.py::test_a_fault_before_measuring",
    ),
    Fault(
        "GPU lost in the window",
        "invalid: `gpu-lost`; other GPUs keep their readings",
        "tests/test_faults.py::test_a_fault_while_measuring",
    ),
    Fault(
        "counter goes backwards",
        "invalid: `counter-backwards`",
        "tests/test_faults.py::test_a_fault_while_measuring",
    ),
    Fault(
        "counter reset, then past the old value",
        "invalid: `counter-reset`; no energy is computed",
        "tests/test_faults.py::test_counter_reset_then_past_the_old_value",
    ),
    Fault(
        "jump of 10⁹ J",
        "invalid: `counter-jump`",
        "tests/test_faults.py::test_a_fault_while_measuring",
    ),
    Fault(
        "frozen from the start",
        "invalid: `counter-frozen`",
        "tests/test_faults.py::test_frozen_from_the_start",
    ),
    Fault(
        "frozen halfway",
        "invalid: `counter-frozen`",
        "tests/test_faults.py::test_a_fault_while_measuring",
    ),
    Fault(
        "100 ms counter under 30 ms windows",
        "`MeterError`: the counter did not tick in it",
        "tests/test_faults.py::test_a_100_ms_counter_under_30_ms_windows",
    ),
    Fault(
        "no NVML library",
        "`MeterError`: install the driver",
        "tests/test_faults.py::test_no_nvml_library",
    ),
    Fault(
        "driver down, or zero GPUs",
        "`MeterError`; once the driver is back, the next run measures",
        "tests/test_faults.py::test_the_driver_comes_back",
    ),
    Fault(
        "wall clock steps back",
        "measured as ever: every time is of the monotonic clock",
        "tests/test_faults.py::test_the_wall_clock_steps_back",
    ),
    Fault(
        "an NVML call stalls for 2 s",
        "invalid: `meter-gap`",
        "tests/test_faults.py::test_an_nvml_call_that_stalls_for_2_s",
    ),
    Fault("MIG on", "invalid: `mig-on`", "tests/test_faults.py::test_mig_is_on"),
    Fault(
        "MIG switched on, or the power limit changed, in the window",
        "invalid: `gpu-changed`",
        "tests/test_faults.py::test_a_fault_while_measuring",
    ),
    Fault(
        "MIG switched on, or the power limit changed, for a while and back again",
        "invalid: `gpu-changed`, where a reading of every half second saw it in the window",
        "tests/test_faults.py::test_a_setting_that_is_changed_for_a_while",
    ),
    Fault(
        "sampling process dies or hangs",
        "invalid: `meter-stopped`",
        "tests/test_faults.py::test_the_power_or_temperature_child",
    ),
    Fault(
        "CUDA_VISIBLE_DEVICES empty, of MIG slices, out of range, doubled or cut off",
        "`MeterError` that quotes it and says what is wrong",
        "tests/test_faults.py::test_cuda_visible_devices",
    ),
    Fault(
        "a GPU named twice",
        "`MeterError`; in a stored trace `gpu-twice`",
        "tests/test_faults.py::test_a_gpu_is_counted_twice",
    ),
)

MACHINE = (
    Fault(
        "thermal brake in the window",
        "invalid: `clock-brake`",
        "tests/test_server_faults.py::test_what_makes_a_measurement_invalid[thermal-brake]",
    ),
    Fault(
        "power brake in the window",
        "invalid: `clock-brake`",
        "tests/test_server_faults.py::test_what_makes_a_measurement_invalid[power-brake]",
    ),
    Fault(
        "another process appears on the GPU",
        "invalid: `foreign-process` with its number",
        "tests/test_server_faults.py::test_what_makes_a_measurement_invalid[foreign-process]",
    ),
    Fault(
        "wall clock steps back by an hour at each look, in every process",
        "measured as ever",
        "tests/test_server_faults.py::test_what_a_measurement_survives[wall-clock]",
    ),
    Fault(
        "disk full while recording",
        "`BaselineError` with the reason; the old file is as before, nothing else is left",
        "tests/plugin/test_machine_faults.py::test_a_full_and_then_a_read_only_disk",
    ),
    Fault(
        "disk full for `.joules`",
        "a warning that this session is not stored any further; it is judged all the same",
        "tests/plugin/test_machine_faults.py::test_a_full_and_then_a_read_only_disk",
    ),
    Fault(
        "disk full under load",
        "`LoadError` with the reason",
        "tests/plugin/test_machine_faults.py::test_a_disk_that_fills_up_under_load_ends_it_with_the_reason",
    ),
    Fault(
        "launch folder that cannot be written",
        "`LaunchError` with the reason",
        "tests/plugin/test_machine_faults.py::test_a_launch_that_cannot_write_its_folder_says_so",
    ),
    Fault(
        "read-only baselines",
        "`BaselineError` with the reason",
        "tests/plugin/test_machine_faults.py::test_a_full_and_then_a_read_only_disk",
    ),
    Fault(
        "rename that fails as on NFS (ESTALE, EXDEV, EIO, EROFS)",
        "`BaselineError`; the old file is as before, nothing else is left",
        "tests/plugin/test_machine_faults.py::test_a_rename_that_fails_as_on_nfs_leaves_the_old_file",
    ),
    Fault(
        "data that does not reach the disk (EIO, ESTALE, EDQUOT)",
        "`BaselineError`; the old file is as before, nothing else is left",
        "tests/plugin/test_machine_faults.py::test_data_that_does_not_reach_the_disk_leaves_the_old_file",
    ),
    Fault(
        "two sessions record into one baselines folder",
        "both sessions' runs are in the file",
        "tests/plugin/test_machine_faults.py::test_two_sessions_at_once_lose_nothing_of_each_other",
    ),
    Fault(
        "two sessions record one point with different work",
        "the second one's `BaselineMismatch` says so, and to record again; the first one's "
        "runs stay",
        "tests/test_baseline_sound.py::test_runs_of_other_work_are_not_added",
    ),
    Fault(
        "two sessions prune `.joules` at once",
        "neither notices",
        "tests/test_pruning.py::test_sessions_that_prune_the_same_folder_at_once_do_not_trip",
    ),
    Fault(
        "SIGTERM, SIGKILL or SIGINT of pytest at a random moment",
        "no process is left, every file can be read, every announced result is stored",
        "tests/test_kill_soak.py::test_nothing_is_left_or_lost_when_pytest_is_killed",
    ),
    Fault(
        "the supervisor of a server is killed",
        "no process is left",
        "tests/test_process.py::test_nothing_survives_when_the_supervisor_is_killed",
    ),
)

TABLES = {"Server": SERVER, "Meter": METER, "Machine": MACHINE}


def rows(faults: tuple[Fault, ...]) -> list[str]:
    """Return the lines of one of the page's tables, without its head."""
    return [f"| {fault.what} | {fault.outcome} |" for fault in faults]
