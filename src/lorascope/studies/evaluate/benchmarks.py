"""General benchmarks through lm-eval, in every condition, differences paired by item.

lm-eval (extra `eval`) builds prompts, scores answers and knows the tasks; this module gives it the
model in each condition and makes estimates of its scores by item. "embedded" is a task of the
package: short completions with two choices, in a local file.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import Any, Final

import torch

from lorascope.errors import InputError
from lorascope.fits.conditions import ADAPTED, ORIGINAL, SPLICED, UNSPLICED
from lorascope.foreign import first_line
from lorascope.results import Estimate, Interval, Key, Null
from lorascope.results.null_names import GUESSING, NO_ADAPTER, NOTHING_SPLICED
from lorascope.stats.intervals import normal_interval, or_point, wilson_interval, within
from lorascope.studies.evaluate.settings import Benchmarks
from lorascope.studies.evaluate.subjects import OpenedSubject
from lorascope.studies.evaluate.units import Units

EMBEDDED: Final = "embedded"
# What lm-eval calls the package's task.
_TASK: Final = "lorascope_embedded"
# Of a task's metrics, the first of these that it has is its score.
_METRICS: Final = ("acc", "acc_norm", "exact_match", "mc2", "mc1", "f1")
# Those whose guesses are right as often as one of the choices is.
_CHOSEN: Final = ("acc", "acc_norm")


@dataclass(frozen=True)
class TaskScores:
    """A task in one condition.

    Attributes:
        values: score of every item, in order.
        guessed: what choosing at random scores; None where nothing is chosen among.
    """

    values: list[float]
    guessed: float | None = None


Scores = dict[str, TaskScores]


def require_lm_eval() -> Any:
    """lm-eval.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module("lm_eval")
    except ImportError:
        raise InputError('general benchmarks need lm-eval: pip install "lorascope[eval]"') from None


def embedded_task() -> dict[str, Any]:
    """The package's task, as lm-eval takes a configuration."""
    place = Path(str(files("lorascope.studies.evaluate"))) / "tasks" / "embedded.jsonl"
    return {
        "task": _TASK,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(place)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }


@torch.no_grad()
def task_scores(
    subject: OpenedSubject, condition: str, settings: Benchmarks, seed: int = 0
) -> Scores:
    """The scores of every task in one condition.

    Raises:
        InputError: lm-eval is not installed, does not know a task, or cannot fetch its data.
    """
    require_lm_eval()
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    tasks = [embedded_task() if name == EMBEDDED else name for name in settings.tasks]
    plain = all(name == EMBEDDED for name in settings.tasks)
    include = settings.include or None
    with _quiet(), subject.condition(condition)():
        # The condition has put everything on the model: it is called as it is.
        model: Any = HFLM(
            pretrained=_Plain(subject.module),
            tokenizer=subject.tokenizer,
            batch_size=settings.batch,
        )
        try:
            found = simple_evaluate(
                model,
                tasks=tasks,
                num_fewshot=settings.fewshot,
                limit=settings.limit,
                bootstrap_iters=0,
                log_samples=True,
                random_seed=seed,
                task_manager=TaskManager(include_path=include, include_defaults=not plain),
            )
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"lm-eval cannot run {', '.join(settings.tasks)} ({first_line(error)}); check the "
                "names, benchmarks.include, and the network for tasks of the hub"
            ) from None
    assert found is not None
    return {
        EMBEDDED if name == _TASK else name: _by_item(name, samples)
        for name, samples in found["samples"].items()
    }


def _by_item(name: str, samples: Sequence[Mapping[str, Any]]) -> TaskScores:
    ordered = sorted(samples, key=lambda one: one["doc_id"])
    metric = next((one for one in _METRICS if ordered and one in ordered[0]), None)
    if metric is None:
        raise InputError(
            f"{name}: none of its metrics is one that is scored by item ({', '.join(_METRICS)})"
        )
    return TaskScores([float(one[metric]) for one in ordered], guessed_of(metric, ordered))


def guessed_of(metric: str, samples: Sequence[Mapping[str, Any]]) -> float | None:
    """What choosing at random scores; None where nothing is chosen among, or that is not known.

    Args:
        samples: lm-eval's records of a task's items.
    """
    choices = [len(one.get("arguments", ())) for one in samples]
    # Tasks that score answers without their question too ask twice of every choice.
    if metric not in _CHOSEN or min(choices) < 2 or "acc_mutual_info" in samples[0]:
        return None
    return sum(1 / count for count in choices) / len(choices)


class _Plain(torch.nn.Module):
    """A model whose forward and generate are another's, with what evaluators ask a model for."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self._module = module
        self.config = module.config
        self.device = module.get_input_embeddings().weight.device
        self.name_or_path = str(getattr(module, "name_or_path", ""))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own."""
        return self._module(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own."""
        return self._module.generate(*args, **kwargs)

    def tie_weights(self) -> None:
        """Nothing to tie: the model is complete."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Without lm-eval's bars, and its defaults that it logs as warnings; what fails is raised."""
    from lm_eval import evaluator

    logger = logging.getLogger("lm_eval")
    before, version = logger.level, evaluator.get_git_commit_hash
    logger.setLevel(logging.ERROR)
    # It asks git for a version of the folder it runs in, and git complains where there is none.
    evaluator.get_git_commit_hash = lambda: None
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        logger.setLevel(before)
        evaluator.get_git_commit_hash = version


def benchmark_estimates(scores: Mapping[str, Scores], subject: OpenedSubject) -> list[Estimate]:
    """Every task in every condition, beside the original on the same items.

    Args:
        scores: by condition, then task.
    """
    found: list[Estimate] = []
    for task in scores[ORIGINAL]:
        items = {name: torch.tensor(one[task].values).double() for name, one in scores.items()}
        guessed = scores[ORIGINAL][task].guessed
        guesses = () if guessed is None else (Null.exact(GUESSING, guessed),)
        for condition, values in items.items():
            place = _place(subject, condition, task)
            nulls: tuple[Null, ...] = guesses
            if condition != ORIGINAL:
                original = items[ORIGINAL]
                level = float(original.mean())
                gap = normal_interval(values - original)
                around = or_point(level, _interval(original))
                own = Null(NOTHING_SPLICED, level, *around, rival=True, difference=gap)
                nulls = (own, *guesses)
            found.append(_estimate("evaluate.benchmark", values, nulls, place))
        # Without dictionaries the same difference stands beside the original above.
        if ADAPTED in items and SPLICED in items:
            place = replace(_place(subject, ADAPTED, task), about="evaluate.benchmark")
            zero = (Null.exact(NO_ADAPTER, 0.0, rival=True),)
            gaps = items[ADAPTED] - items[SPLICED]
            found.append(_estimate("evaluate.change", gaps, zero, place))
    return found


def benchmark_units(scores: Mapping[str, Scores], subject: OpenedSubject) -> list[Units]:
    """What the scores are made of, item by item."""
    found = []
    for condition, tasks in scores.items():
        for task, one in tasks.items():
            place = _place(subject, condition, task)
            ids = [f"{task} {number}" for number in range(len(one.values))]
            found.append(Units.mean("evaluate.benchmark", place, "items", ids, one.values))
    return found


def _estimate(measure: str, values: torch.Tensor, nulls: tuple[Null, ...], place: Key) -> Estimate:
    interval = normal_interval(values) if measure == "evaluate.change" else _interval(values)
    return Estimate(measure, float(values.mean()), interval, len(values), "share", nulls, place)


def _interval(scores: torch.Tensor) -> Interval:
    """Of a mean score: Wilson's where every item is right or wrong, else t over items."""
    if bool(((scores == 0) | (scores == 1)).all()):
        return wilson_interval(int(scores.sum()), len(scores))
    return within(normal_interval(scores), 0.0, 1.0)


def _place(subject: OpenedSubject, condition: str, task: str) -> Key:
    return Key(
        adapter=subject.adapter if condition in (ADAPTED, UNSPLICED) else "",
        site="+".join(site.name for site in subject.dictionaries),
        dictionary=subject.name,
        model=condition,
        topic=task,
    )


def benchmarks(
    subject: OpenedSubject,
    settings: Benchmarks,
    seed: int = 0,
    advance: Any = lambda done: None,
    units: list[Units] | None = None,
) -> list[Estimate]:
    """All tasks in all conditions of a subject.

    Args:
        advance: told after each condition.
        units: collects what the numbers are made of.
    """
    scores = {}
    for condition in subject.conditions:
        scores[condition] = task_scores(subject, condition, settings, seed)
        advance(1)
    if units is not None:
        units += benchmark_units(scores, subject)
    return benchmark_estimates(scores, subject)
