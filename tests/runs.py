"""Runs as tests ask for them: built in this process, or asked for their keys alone."""

from functools import cached_property

from fsasd.cli import configure as configured
from fsasd.cli.run import run
from fsasd.pipeline.plan import plan
from fsasd.store.key import Description
from fsasd.store.store import Store


class Run:
    """A run of the command's body: call it to build, ask it for keys without building."""

    def __init__(self, cfg, folder):
        self.cfg, self.folder = cfg, folder

    def __call__(self):
        return run(self.cfg, self.folder)[0]

    @cached_property
    def experiment(self):
        return configured.experiment(self.cfg)

    @property
    def data(self):
        return self.experiment.data

    @property
    def detector(self):
        return self.experiment.detector

    @property
    def store(self):
        return Store(self.cfg.store)

    def stages(self, name):
        groups = plan(configured.planners(self.cfg), self.experiment)
        return [stage for stages in groups.values() for stage in stages if stage.name == name]

    def keys(self, name):
        return [describe(stage).key for stage in self.stages(name)]

    def artifact(self, name):
        (stage,) = self.stages(name)
        return self.store.path(describe(stage))


def describe(stage):
    inputs = {name: describe(needed).key for name, needed in stage.input_stages()}
    section = str(stage.section or "")
    return Description(stage.name, stage.version, stage.spec(), inputs, section)
