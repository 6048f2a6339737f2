"""The second device itself: mixtures are refused, waits counted, and numbers those of the CPU."""

import copy

import pytest
import torch
from second_device import (
    DEVICE,
    MixedError,
    OnDevice,
    UnfinishedError,
    move,
    second_device,
)
from torch import nn
from torch.nn import functional
from waits import counted

from lorascope.models.sending import places, sent
from lorascope.randomness import generator

ROWS = torch.randn(6, 4, generator=generator(0, "rows"))
MIXTURES = {
    "a constant made without a device": lambda x: x + torch.ones(4),
    "a batch left on the CPU": lambda x: ROWS @ x.T,
    "an index there into a tensor here": lambda x: ROWS[x.argmax(0)],
    "a mask there on a tensor here": lambda x: ROWS[(x > 0).any(1)],
    "gather by an index on the CPU": lambda x: x.gather(1, torch.zeros(6, 1, dtype=torch.long)),
    "a number on the CPU in a concatenation": lambda x: torch.stack([x.sum(), torch.tensor(1.0)]),
    "a sum kept on the CPU": lambda x: torch.zeros(()).add_(x.sum()),
    "an output on the CPU": lambda x: torch.mm(x, x.T, out=torch.empty(6, 6)),
    "a loss of targets on the CPU": lambda x: functional.cross_entropy(x, ROWS.argmax(1)),
    "a gradient of the other device": lambda x: nn.Linear(4, 2)(x),
}
WAITS = {
    "item": (lambda x: x.sum().item(), 1),
    "float": (lambda x: float(x.sum()), 1),
    "bool": (lambda x: bool((x > 0).any()), 1),
    "if": (lambda x: 1 if x.max() > 0 else 2, 1),
    "tolist": (lambda x: x.tolist(), 1),
    "cpu": (lambda x: x.cpu(), 1),
    "to": (lambda x: x.to("cpu", torch.float64), 1),
    "a copy into a tensor here": (lambda x: torch.empty(6, 4).copy_(x), 1),
    "nonzero": (lambda x: x.nonzero(), 1),
    "where without values": (lambda x: torch.where(x > 0), 1),
    "a mask as an index": (lambda x: x[x[:, 0] > 0], 1),
    "rows put at a mask": (lambda x: x.clone().index_put_((x[:, 0] > -9,), x), 1),
    "masked_select": (lambda x: x.masked_select(x > 0), 1),
    "unique": (lambda x: x.unique(), 1),
    "equal": (lambda x: torch.equal(x, x), 1),
    "a loop over numbers": (lambda x: [float(one) for one in x[0]], 4),
    "nothing: a number put at a mask": (lambda x: x.clone().masked_fill_(x > 0, 0.0), 0),
    "nothing: a number put by a mask as an index": (lambda x: _put(x), 0),
    "nothing: rows by their indices": (lambda x: x[x.argmax(0)], 0),
    "nothing: rows by indices from the CPU": (lambda x: x[torch.tensor([0, 2])], 0),
    "nothing: rows by a list": (lambda x: x[:, [0, 2]] + x[[0]][:, :2], 0),
    "nothing: a number on the CPU": (lambda x: x * torch.tensor(2.0), 0),
    "nothing: to where it is": (lambda x: x.to(DEVICE).to(x.device), 0),
    "nothing: numbers of the CPU": (lambda x: ROWS.sum().item() + len(ROWS[ROWS > 0]), 0),
    "nothing: shapes and devices": (lambda x: (len(x), x.shape, x.device, x.is_cuda), 0),
}


def _put(x):
    changed = x.clone()
    changed[changed > 0] = 0.0


@pytest.mark.parametrize("planted", MIXTURES)
def test_a_mixture_is_refused(planted):
    with second_device(), pytest.raises(MixedError, match=r"test_second_device\.py"):
        MIXTURES[planted](ROWS.to(DEVICE))


@pytest.mark.parametrize("planted", WAITS)
def test_what_waits_for_the_device_is_counted(planted):
    call, count = WAITS[planted]
    with second_device() as watch:
        there = ROWS.to(DEVICE)
        call(there)
        assert len(watch.waits) == count, watch.waits
    for wait in watch.waits:
        assert wait.where.startswith("tests/devices/test_second_device.py:"), wait


def test_copies_from_the_cpu_that_wait_are_counted():
    with second_device() as watch:
        ROWS.to(DEVICE)
        there = torch.tensor([1.0, 2.0], device=DEVICE)
        there.copy_(torch.zeros(2))
        assert [copy.what for copy in watch.copies] == ["_to_copy", "_to_copy", "copy_"]
        ROWS.to(DEVICE, non_blocking=True)
        there.copy_(torch.zeros(2), non_blocking=True)
        torch.full((), 2.0, device=DEVICE)
        there.to(DEVICE)
        there[torch.tensor([0], device=DEVICE)]
        there[1:]
        assert len(watch.copies) == 4, watch.copies
        there[torch.tensor([0, 1])]
        assert len(watch.copies) == 5
        assert watch.waits == []


def test_a_copy_to_the_cpu_that_no_one_waits_for_is_refused():
    with second_device():
        there = ROWS.to(DEVICE)
        with pytest.raises(UnfinishedError, match=r"test_second_device\.py"):
            there.to("cpu", non_blocking=True)
        with pytest.raises(UnfinishedError):
            torch.empty(6, 4).copy_(there, non_blocking=True)
        assert torch.equal(there.to("cpu"), ROWS)


@pytest.mark.parametrize("begin", ["cpu", "second:0"])
@pytest.mark.parametrize("end", ["cpu", "second:0"])
def test_what_is_sent_is_there_and_indexes_as_its_mask(begin, end):
    mask = ROWS > 0
    with second_device() as watch:
        there = mask.to(begin)
        copies = len(watch.copies)
        assert torch.equal(sent(there, end).cpu(), mask)
        at = places(there, end)
        assert at[0].device == at[1].device == torch.device(end)
        assert torch.equal(ROWS.to(end)[at].cpu(), ROWS[mask])
        # only what this test itself copied
        assert len(watch.copies) == copies + (end != "cpu")


def a_run(device, read=False):
    """Ten steps of a small network; what is left of it, gradients too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.LayerNorm(8), nn.Linear(8, 3))
    module.to(device)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    inputs, targets = ROWS.to(device), torch.arange(6, device=device) % 3
    total = torch.zeros((), device=device)
    for _ in range(10):
        optimizer.zero_grad()
        scores = module(inputs)
        scores = scores.masked_fill(torch.eye(6, 3, dtype=torch.bool, device=device), -1.0)
        loss = functional.cross_entropy(scores, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        total += loss.detach() if not read else loss.item()
    assert {p.grad.device for p in module.parameters()} == {torch.device(device)}
    return total, [p.detach() for p in module.parameters()], module


def test_a_program_that_mixes_nothing_gives_the_cpus_numbers():
    plain, weights, _ = a_run("cpu")
    with second_device() as watch:
        total, there, _ = a_run(DEVICE)
        assert watch.waits == []
        assert watch.operations > 500
        assert all(isinstance(one, OnDevice) for one in there)
        assert torch.equal(total.cpu(), plain)
        assert all(torch.equal(a.cpu(), b) for a, b in zip(there, weights, strict=True))
    with second_device() as watch:
        assert torch.equal(a_run(DEVICE, read=True)[0].cpu(), plain)
    assert counted(watch.waits) == {
        "tests/devices/test_second_device.py:a_run": 10,
        "tests/devices/test_second_device.py:"
        "test_a_program_that_mixes_nothing_gives_the_cpus_numbers": 1,
    }


def test_gradients_cross_between_the_devices_with_their_tensors():
    with second_device() as watch:
        here = ROWS.clone().requires_grad_()
        (here.to(DEVICE) ** 2).sum().backward()
        assert type(here.grad) is torch.Tensor
        torch.testing.assert_close(here.grad, 2 * ROWS)
        # the gradient's way back is a copy to the CPU
        assert len(watch.waits) == 1


def test_copies_and_new_data_take_their_numbers_along():
    with second_device():
        module = nn.Linear(4, 4, bias=False).to(DEVICE)
        twin, before = copy.deepcopy(module), module.weight.cpu()
        module.weight.data.fill_(1.0)
        assert torch.equal(module.weight.cpu(), torch.ones(4, 4))
        assert torch.equal(twin.weight.cpu(), before)
        module.weight.data = twin.weight.data
        assert torch.equal(module.weight.cpu(), before)
        with pytest.raises(MixedError):
            module.weight.data = before
        # a view writes into what it is of
        module.weight.data.T[:, 0] = 5.0
        assert torch.equal(module.weight.cpu()[0], torch.full((4,), 5.0))


def test_tied_parameters_stay_tied():
    module = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)])
    module[1].weight = module[0].weight
    with second_device():
        move(module)
        assert module[1].weight is module[0].weight
        assert module[0].weight.device == DEVICE


def test_nothing_of_it_is_left_afterwards():
    makers = torch.tensor, torch.as_tensor, torch.asarray
    with second_device():
        there = torch.tensor([1.0], device=DEVICE)
    assert (torch.tensor, torch.as_tensor, torch.asarray) == makers
    assert not torch.accelerator.is_available()
    with pytest.raises(RuntimeError, match="outside"):
        there + 1
    with torch.device("meta"):
        assert torch.tensor([1.0]).device.type == "meta"
