"""Where else a run's numbers go, by name: its own files come first, and nothing goes by itself.

None of these reaches the network: W&B writes its offline folder, trackio and MLflow a local one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from builder.errors import InputError
from builder.training.libraries import library
from builder.training.runs import Run


class Logger(Protocol):
    """Is given every event of a run; ``after`` is the step that it goes on from."""

    def __init__(self, run: Run, after: int) -> None: ...

    def log(self, event: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


def scalars(event: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of an event by name: ``step/loss``, ``validation/bits_per_byte``."""
    head = "/".join(str(event[key]) for key in ("event", "set") if key in event)
    for name, value in event.items():
        if isinstance(value, int | float) and name != "step":
            yield f"{head}/{name}", float(value)


class TensorBoard:
    """Scalars and samples under ``tensorboard/`` in the run folder."""

    def __init__(self, run: Run, after: int) -> None:
        board = package("torch.utils.tensorboard", "tensorboard")
        self._writer = board.SummaryWriter(str(run.path / "tensorboard"), purge_step=after + 1)

    def log(self, event: Mapping[str, Any]) -> None:
        for name, value in scalars(event):
            self._writer.add_scalar(name, value, event["step"])
        if "text" in event:
            self._writer.add_text("sample", event["text"], event["step"])

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A W&B run, offline under ``wandb/`` in the run folder: ``wandb sync`` sends it, if you do."""

    name = "wandb"
    place: Mapping[str, str] = {"mode": "offline"}

    def __init__(self, run: Run, after: int) -> None:
        told: dict[str, Any] = {"project": run.recipe.name, "name": run.path.name}
        if self.name == "wandb":
            told["dir"] = str(run.path)
        self._run = package(self.name, self.name).init(
            config={"recipe": run.recipe.resolved}, **told, **self.place
        )

    def log(self, event: Mapping[str, Any]) -> None:
        self._run.log(dict(scalars(event)), step=event["step"])

    def close(self) -> None:
        self._run.finish()


class Trackio(Wandb):
    """A trackio run, in its local database."""

    name = "trackio"
    place: Mapping[str, str] = {}


class MLflow:
    """An MLflow run, in a database in the run folder; ``mlflow-skinny`` knows no databases."""

    def __init__(self, run: Run, after: int) -> None:
        self._mlflow = package("mlflow", "mlflow")
        self._mlflow.set_tracking_uri(self.place(run))
        self._mlflow.set_experiment(run.recipe.name)
        self._mlflow.start_run(run_name=run.path.name)

    @staticmethod
    def place(run: Run) -> str:
        return f"sqlite:///{run.path.absolute()}/mlflow.db"

    def log(self, event: Mapping[str, Any]) -> None:
        self._mlflow.log_metrics(dict(scalars(event)), step=event["step"])

    def close(self) -> None:
        self._mlflow.end_run()


LOGGERS: dict[str, type[Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "trackio": Trackio,
    "mlflow": MLflow,
}


def package(module: str, name: str) -> Any:
    return library(module, f"--log {name}", name)


def named_loggers(names: Sequence[str]) -> list[type[Logger]]:
    """The loggers of these names.  InputError if there is no such, or its package is not there."""
    for name in names:
        if name not in LOGGERS:
            message = f"{name!r} is no logger"
            raise InputError("unknown-word", message, f"--log: {', '.join(LOGGERS)}")
    return [LOGGERS[name] for name in names]
