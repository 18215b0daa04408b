"""Train four classifiers at once, serve the best one, and send it one image.

The data are the 1,797 handwritten digits of scikit-learn, 8 by 8 pixels each. A trained classifier is the result of its
call, so the machine that trains it and the machine that serves it may differ.
"""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import aiohttp
import joblib
from aiohttp import web
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.utils import shuffle

from lightwork import App, BuildConfig, Flow, Work

CLASSIFIERS: dict[str, Any] = {
    "logistic": SGDClassifier(loss="log_loss", random_state=0),
    "huber": SGDClassifier(loss="modified_huber", alpha=0.001, random_state=0),
    "small_net": MLPClassifier((32,), learning_rate_init=0.01, random_state=0),
    "deep_net": MLPClassifier((128, 64), learning_rate_init=0.003, random_state=0),
}

# A machine that only has lightwork needs these. On this machine they are installed already.
BUILD = BuildConfig(requirements=[str(Path(__file__).with_name("requirements.txt"))])


def load_data() -> Any:
    """Return images and labels for training, then images and labels for testing: the same split every time."""
    images, labels = load_digits(return_X_y=True)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images / 16, labels, test_size=0.25, random_state=0, stratify=labels
    )
    return train_images, train_labels, test_images, test_labels


class TrainClassifier(Work):
    """Trains one classifier in a separate process, and updates its state after every epoch."""

    def __init__(self, kind: str) -> None:
        super().__init__(parallel=True, cloud_build_config=BUILD)
        self.kind = kind
        # Public attributes are state: the flow sees each value that `run` assigns to them.
        self.epoch = 0
        self.accuracy = 0.0
        self.loss = float("inf")

    def run(self, epochs: int) -> bytes:
        classifier = CLASSIFIERS[self.kind]
        train_images, train_labels, test_images, test_labels = load_data()
        for epoch in range(epochs):
            images, labels = shuffle(train_images, train_labels, random_state=epoch)
            classifier.partial_fit(images, labels, classes=range(10))
            self.epoch = epoch + 1
            self.accuracy = float(classifier.score(test_images, test_labels))
            self.loss = float(log_loss(test_labels, classifier.predict_proba(test_images)))

        model = io.BytesIO()
        joblib.dump(classifier, model)
        return model.getvalue()


class ServeModel(Work):
    """Answers ``POST /predict`` until the flow stops."""

    def __init__(self) -> None:
        super().__init__(parallel=True, cloud_build_config=BUILD)
        self.answered = 0

    async def run(self, model: bytes) -> None:
        classifier = joblib.load(io.BytesIO(model))

        async def predict(request: web.Request) -> web.Response:
            pixels = (await request.json())["pixels"]
            self.answered += 1
            return web.json_response({"digit": int(classifier.predict([pixels])[0])})

        service = web.Application()
        service.router.add_post("/predict", predict)
        runner = web.AppRunner(service)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port).start()
            await asyncio.Event().wait()  # never set: the run ends when it is cancelled
        finally:
            await runner.cleanup()


class Digits(Flow):
    """Trains all classifiers, and serves the best."""

    def __init__(self, epochs: int = 60) -> None:
        super().__init__()
        self.epochs = epochs
        self.trials = {kind: TrainClassifier(kind) for kind in CLASSIFIERS}
        self.server = ServeModel()

    async def run(self) -> None:
        # `run` is called again after every change. A repeated call does not run again: it returns the
        # cached result, or joins the call that is still running.
        trials = list(self.trials.values())
        models = await asyncio.gather(*[trial.submit(self.epochs) for trial in trials])
        best, model = max(zip(trials, models, strict=True), key=lambda pair: pair[0].accuracy)

        self.server.submit(model)
        if not self.server.url:  # it does not answer yet; when it does, `run` is called again
            return

        *_, test_images, test_labels = load_data()
        digit = await self.ask(test_images[0].tolist())
        for trial in trials:
            print(f"{trial.kind:>10}: accuracy {trial.accuracy:.3f}, loss {trial.loss:.3f}")
        if digit == test_labels[0]:
            self.stop(f"{best.kind} is the best, and it reads a {test_labels[0]} as a {digit}")
        else:
            self.fail(f"{best.kind} is the best, but it reads a {test_labels[0]} as a {digit}")

    async def ask(self, pixels: list[float]) -> int:
        """Ask the serving work which digit it reads in the image."""
        async with (
            aiohttp.ClientSession(raise_for_status=True) as session,
            session.post(f"{self.server.url}/predict", json={"pixels": pixels}) as response,
        ):
            return int((await response.json())["digit"])


app = App(Digits())
