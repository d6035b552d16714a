from hypothesis import HealthCheck, settings

pytest_plugins = ["pytester"]

# How long an example takes, or drawing it, depends on what else this machine does.
settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")
