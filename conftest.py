from hypothesis import settings

pytest_plugins = ["pytester"]

# How long an example takes depends on what else this machine does.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
