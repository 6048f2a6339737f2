"""Files changed at random, every format: opened, or refused in one line that names them.

Bytes of any file are exchanged, cut out or doubled; values of a configuration give way to values
of every other kind; tensors change name, kind and shape.
"""

import copy
import json
import random

import pytest
import torch

from lorascope.dictionaries.files import FORMATS, open_dictionary, save
from lorascope.errors import InputError

VALUES = [
    *(None, True, False, 0, 1, -1, 3, 10**9, 10**30, 2.5, -0.0, float("inf"), float("nan")),
    *("", "true", "topk", "layers.1", "\x1b[0m", "a" * 10_000, "é\n\nb", [], [1], [[]], {}),
    *({"k": 3}, {"in": "x"}, {"io": []}, [None] * 50),
]


def places(data):
    """Every (mapping, key) of nested mappings."""
    for key, value in data.items():
        yield data, key
        if isinstance(value, dict):
            yield from places(value)


def other_values(chance, path):
    data = json.loads(path.read_text())
    for _ in range(chance.randint(1, 3)):
        inside, key = chance.choice(list(places(data)))
        if chance.random() < 0.15:
            del inside[key]
            if not data:
                break
        else:
            inside[key] = copy.deepcopy(chance.choice(VALUES))
    path.write_text(json.dumps(data))


def other_bytes(chance, path):
    data = bytearray(path.read_bytes())
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(data)) if data else 0
        match chance.randrange(4):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del data[at : at + chance.randint(1, 40)]
            case 2:
                data[at:at] = data[at : at + chance.randint(1, 40)]
            case 3:
                data[at : at + 8] = chance.randbytes(8)
    path.write_bytes(bytes(data))


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
