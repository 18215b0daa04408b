"""Apps as they were written for Lightning: components, state, plain `run`. Only the import lines are lightwork's."""

# The apps have no annotations.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, operator, var-annotated"

import time
from datetime import datetime

from lightwork import BuildConfig, CloudCompute, LightningApp, LightningFlow, LightningWork
from lightwork.structures import Dict, List

# --- two works in sequence, state passed from one to the other -------------------------------------


class Train(LightningWork):
    def __init__(self):
        super().__init__(cloud_compute=CloudCompute("gpu"), cloud_build_config=BuildConfig(requirements=["torch"]))
        self.best_model_path = None
        self.num_epochs = 0

    def run(self, max_epochs):
        for _ in range(max_epochs):
            self.num_epochs += 1
        self.best_model_path = f"model-{max_epochs}.ckpt"


class Deploy(LightningWork):
    def __init__(self):
        super().__init__()
        self.serves = None

    def run(self, path):
        self.serves = path


class TrainAndDeploy(LightningFlow):
    def __init__(self):
        super().__init__()
        self.train = Train()
        self.deploy = Deploy()

    def run(self):
        self.train.run(max_epochs=3)
        self.deploy.run(self.train.best_model_path)
        self.stop("deployed")


# --- parallel works, polled ------------------------------------------------------------------------


class Simulate(LightningWork):
    def __init__(self, seed):
        super().__init__(parallel=True)
        self.seed = seed
        self.result = None

    def run(self):
        time.sleep(0.01)
        self.result = self.seed**2


class Polled(LightningFlow):
    def __init__(self):
        super().__init__()
        self.first = Simulate(2)
        self.second = Simulate(3)
        self.total = None

    def run(self):
        self.first.run()
        self.second.run()
        if self.first.has_succeeded and self.second.has_succeeded:
            self.total = self.first.result + self.second.result
            self.stop()


# --- a work that is run again and again ------------------------------------------------------------


class Count(LightningWork):
    def __init__(self, cache_calls=False, parallel=False):
        super().__init__(cache_calls=cache_calls, parallel=parallel)
        self.counter = 0

    def run(self, *args, **kwargs):
        self.counter += 1


class Repeated(LightningFlow):
    def __init__(self):
        super().__init__()
        self.work = Count()

    def run(self):
        if self.work.counter >= 3:
            self.stop()
        self.work.run()


class RepeatedInParallel(LightningFlow):
    def __init__(self):
        super().__init__()
        self.work = Count(parallel=True)

    def run(self):
        if self.work.counter >= 3:
            self.stop()
        self.work.run()


class Cached(LightningFlow):
    def __init__(self):
        super().__init__()
        self.once = Count(cache_calls=True)
        self.passes = 0

    def run(self):
        self.passes += 1
        for value in (1, 1, 2):
            self.once.run(value)
        self.once.run(2)
        if self.passes > 6:
            self.stop()


# --- works made while the flow runs ----------------------------------------------------------------


class Square(LightningWork):
    def __init__(self):
        super().__init__(parallel=True, cache_calls=True)
        self.value = None

    def run(self, number):
        self.value = number * number


class Dynamic(LightningFlow):
    def __init__(self, count):
        super().__init__()
        self.count = count
        self.by_name = Dict()
        self.in_order = List()
        self.values = {}

    def run(self):
        if not hasattr(self, "extra"):
            self.extra = Square()
        self.extra.run(10)
        for number in range(self.count):
            name = f"w{number}"
            if name not in self.by_name:
                self.by_name[name] = Square()
            self.by_name[name].run(number)
        if len(self.in_order) < self.count:
            self.in_order.append(Square())
        for number, work in enumerate(self.in_order):
            work.run(number + 100)
        works = [*self.by_name.values(), *self.in_order, self.extra]
        if len(self.in_order) == self.count and all(work.has_succeeded for work in works):
            self.values = {work.name: work.value for work in works}
            for work in works:
                work.stop()
            self.stop()


# --- a child flow that has its own run -------------------------------------------------------------


class Pipeline(LightningFlow):
    def __init__(self):
        super().__init__()
        self.clean = Deploy()
        self.fit = Train()
        self.finished = []

    def run(self, name):
        self.clean.run(name)
        self.fit.run(len(self.finished) + 1)
        self.finished.append(name)


class Nested(LightningFlow):
    def __init__(self):
        super().__init__()
        self.pipeline = Pipeline()

    def run(self):
        if len(self.pipeline.finished) < 2:
            self.pipeline.run(f"data-{len(self.pipeline.finished)}")
        else:
            self.stop()


# --- a schedule ------------------------------------------------------------------------------------


class Nightly(LightningFlow):
    """The start time is long past, so the schedule fires at once; no second firing occurs during the test."""

    def __init__(self):
        super().__init__()
        self.extract = Count()
        self.load = Count()
        self.extra = Count(parallel=True)
        self.after = Count(cache_calls=True)
        self.finished = 0
        self.last = 0

    def run(self):
        if self.schedule("@yearly", start_time=datetime(2020, 1, 1)):
            self.extra.run()
            self.extract.run()
            self.load.run()
            self.finished += 1
        if self.finished:
            self.after.run(self.last)
            self.last = min(self.last + 1, 3)
            if self.last == 3 and self.after.num_successes == 4 and self.extra.has_succeeded:
                self.stop()


# --- a work that fails -----------------------------------------------------------------------------


class Fragile(LightningWork):
    def __init__(self, raise_exception):
        super().__init__(raise_exception=raise_exception, parallel=True)
        self.tries = 0

    def run(self):
        self.tries += 1
        raise ValueError("the data are bad")


class Tolerant(LightningFlow):
    def __init__(self):
        super().__init__()
        self.fragile = Fragile(raise_exception=False)
        self.fallback = Deploy()

    def run(self):
        self.fragile.run()
        if self.fragile.has_failed:
            self.fallback.run("yesterday's")
            self.stop(self.fragile.status.message)


class Intolerant(LightningFlow):
    def __init__(self):
        super().__init__()
        self.fragile = Fragile(raise_exception=True)

    def run(self):
        self.fragile.run()


# --- state both ways while a work runs -------------------------------------------------------------


class Listen(LightningWork):
    def __init__(self):
        super().__init__(parallel=True)
        self.heard = 0
        self.should_end = False

    def run(self):
        while not self.should_end:
            self.heard += 1
            time.sleep(0.001)


class Converse(LightningFlow):
    def __init__(self):
        super().__init__()
        self.listen = Listen()

    def run(self):
        self.listen.run()
        if self.listen.heard > 3 and not self.listen.should_end:
            self.listen.should_end = True
        if self.listen.has_succeeded:
            self.stop()


# --- items, one after the other --------------------------------------------------------------------


class OneByOne(LightningFlow):
    def __init__(self):
        super().__init__()
        self.work = Square()
        self.train = Train()
        self.seen = []

    def run(self):
        for epochs in self.experimental_iterate((1, 2, 3)):
            self.train.run(epochs)
            self.seen.append(epochs)
        if len(self.seen) == 3:
            self.stop()


# --- an app of one work ----------------------------------------------------------------------------

alone = LightningApp(Count())
