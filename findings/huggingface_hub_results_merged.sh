#!/usr/bin/env bash
# Library:   huggingface_hub 2.4.0
# Guess:     evaluation results of a model card that differ in task_name or dataset_name stay apart.
# Behaviour: results are put together by task type and by the dataset's type, configuration, split and
#            revision alone. The metadata then has the first one's task_name and dataset_name for all of
#            them, and loading the card gives every metric those names. Without names the values cannot
#            be told apart any more. A dataset_config of its own keeps them apart.
# Seen:      given:  layers.1 0.5, layers.2 0.7
#            loaded: layers.1 0.5, layers.1 0.7
#            with dataset_config: layers.1 0.5, layers.2 0.7
# Exit code: 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
venv=${VENV:-$folder/venv}
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q huggingface_hub==2.4.0
fi

"$venv/bin/python" - <<'PY'
import sys

from huggingface_hub import EvalResult, ModelCard, ModelCardData


def loaded(given, configured):
    """What is left of (name, value) pairs once a card was written and read again."""
    results = [
        EvalResult(
            task_type="feature-extraction",
            task_name=name,
            dataset_type="other",
            dataset_name="texts",
            dataset_config=name if configured else None,
            metric_type="fvu",
            metric_value=value,
        )
        for name, value in given
    ]
    data = ModelCardData(model_name="dictionaries", eval_results=results)
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n")
    return [(one.task_name, one.metric_value) for one in card.data.eval_results]


def shown(pairs):
    return ", ".join(f"{name} {value}" for name, value in pairs)


given = [("layers.1", 0.5), ("layers.2", 0.7)]
plain, configured = (loaded(given, with_config) for with_config in (False, True))
print("given: ", shown(given))
print("loaded:", shown(plain))
print("with dataset_config:", shown(configured))
sys.exit(0 if plain == [("layers.1", 0.5), ("layers.1", 0.7)] and configured == given else 1)
PY
