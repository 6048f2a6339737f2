"""Files changed at random, every format: opened, or refused in one line that names them.

Bytes of any file are exchanged, cut out or doubled; values of a configuration give way to values
of every other kind; tensors change name, kind and shape.
"""

import random

import pytest
import torch
from mutations import other_bytes, other_values

from lorascope.dictionaries.files import FORMATS, open_dictionary, save
from lorascope.errors import InputError


def other_tensors(chance, layout, folder):
    tensors = dict(layout.read(folder))
    name = chance.choice(list(tensors))
    tensor = tensors[name]
    match chance.randrange(5):
        case 0:
            tensors[chance.choice([*tensors, "threshold", "bias", "W_skip", "k"])] = tensor
        case 1:
            tensors[name] = tensor.to(chance.choice([torch.int64, torch.float64, torch.float16]))
        case 2:
            tensors[name] = tensor.reshape(-1)
        case 3:
            tensors[name] = tensor[..., None].expand(*tensor.shape, 2).clone()
        case 4:
            tensors[name] = torch.full_like(tensor, chance.choice([float("nan"), 1e38, -1e38, 0]))
    layout.write(folder, tensors)


def attempt(layouts, random_dictionary, folder, number):
    """One changed dictionary; whether it was opened."""
    chance = random.Random(number)
    name = chance.choice([*FORMATS, "own"])
    layout = layouts["saelens" if name == "own" else name]
    if name == "own":
        save(random_dictionary(chance.choice(["relu", "topk", "jumprelu", "gated"])), folder)
    else:
        layout.write(folder)
    how = chance.random()
    configs = sorted(folder.rglob("*.json"))
    if how < 0.45 and configs:
        other_values(chance, chance.choice(configs))
    elif how < 0.7 and name != "own":
        other_tensors(chance, layout, folder)
    else:
        other_bytes(chance, chance.choice(sorted(p for p in folder.rglob("*") if p.is_file())))
    try:
        opened = open_dictionary(folder)
        rows = torch.randn(3, opened.d_model)
        assert opened(rows).shape == rows.shape
    except InputError as refused:
        text = str(refused)
        assert "\n" not in text, (number, text)
        assert len(text) < 1000, (number, text)
        return False
    return True


def many(layouts, random_dictionary, root, numbers):
    opened = 0
    for number in numbers:
        folder = root / f"{number}"
        folder.mkdir()
        opened += attempt(layouts, random_dictionary, folder, number)
    # Some changes are harmless, most are not: both happen.
    assert 0.02 * len(numbers) < opened < 0.6 * len(numbers)


def test_a_few_hundred(layouts, random_dictionary, tmp_path):
    many(layouts, random_dictionary, tmp_path, range(400))


@pytest.mark.slow
def test_thousands(layouts, random_dictionary, tmp_path):
    many(layouts, random_dictionary, tmp_path, range(400, 6000))
