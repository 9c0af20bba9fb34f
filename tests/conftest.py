"""Options, and the plugin of fixtures in the processes that run tests."""

import cpu_times


def pytest_addoption(parser):
    """Add ``--cpu-times``."""
    parser.addoption("--cpu-times", action="store_true", help="list what takes most CPU time")


def pytest_configure(config):
    """Note and list CPU times where that is asked for; have the fixtures."""
    if config.getoption("cpu_times"):
        config.pluginmanager.register(cpu_times)
    # One that hands out tests to others runs none: its start need not wait for torch.
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("shared_fixtures")
