"""A second device that is none: its numbers lie on the CPU, and torch takes them for elsewhere.

A tensor there is a wrapper around one on the CPU and says it is on `DEVICE`, to Python and to
torch's own C++ alike. Inside `second_device()`

- an operation on tensors of both raises `MixedError`, with CUDA's exceptions: numbers without
  a dimension in elementwise operations, indices on the CPU into a tensor there, and copies;
- what waits for a device is noted, with the line that asked for it: numbers read (`item`, `bool`,
  `tolist`), `nonzero` and its like, boolean indices, and copies to the CPU;
- a copy to the CPU that is not waited for (`non_blocking`) raises `UnfinishedError`;
- everything is computed by the CPU's kernels on the tensors inside.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils import _device, backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from waits import Wait, Watch

DEVICE = torch.device("privateuseone:0")
_HERE = Path(__file__).resolve()
_TORCH = Path(torch.__file__).resolve().parent

aten = torch.ops.aten

# How many numbers come out, or whether to go on, is known on the device alone.
_WAITING = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.nonzero_numpy,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
    aten.equal,
    aten.is_nonzero,
    aten.histc,
    aten._linalg_check_errors,
}
# Operations other than elementwise ones that take numbers on the CPU.
_TAKE_NUMBERS = {aten.masked_fill, aten.masked_fill_, aten.where, aten.index_fill, aten.index_fill_}
_INDEXING = {
    aten.index,
    aten.index_put,
    aten.index_put_,
    aten._index_put_impl_,
    aten._unsafe_index,
    aten._unsafe_index_put,
}
_COPYING = {aten.copy_, aten.copy, aten._copy_from}

# What CPU and CUDA have kernels of and other devices take apart, which rounds otherwise.
_WHOLE = ("silu_backward",)
_KERNELS = torch.library.Library("aten", "IMPL")
# The watches that are on.
_WATCHING: list[Watch] = []


class MixedError(RuntimeError):
    """An operation on tensors of both devices."""


class UnfinishedError(RuntimeError):
    """A copy to the CPU that no one waits for: it may be read before it is there."""


class OnDevice(Tensor):
    """A tensor on the second device; `inside` holds its numbers."""

    inside: Tensor
    # The package asks for it where it decides by the device's kind.
    is_cuda = True

    @staticmethod
    def __new__(cls, inside: Tensor) -> OnDevice:
        found = Tensor._make_wrapper_subclass(
            cls,
            inside.shape,
            strides=inside.stride(),
            storage_offset=inside.storage_offset(),
            dtype=inside.dtype,
            device=DEVICE,
        )
        found.inside = inside
        return found

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on the second device outside second_device()")

    def __getitem__(self, index: Any) -> Tensor:
        return Tensor.__getitem__(self, _indexing(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        Tensor.__setitem__(self, _indexing(index), value)

    def tolist(self) -> Any:
        """As `Tensor.tolist`, which torch refuses of wrappers."""
        return self.cpu().tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        """The memory, which tells apart tensors that share it."""
        return self.inside.untyped_storage()

    @property
    def data(self) -> Tensor:
        """As `Tensor.data`; what is set takes the numbers along."""
        return Tensor.data.__get__(self)

    @data.setter
    def data(self, other: Tensor) -> None:
        if not isinstance(other, OnDevice):
            raise MixedError("data of the other device is set")
        Tensor.data.__set__(self, other)
        self.inside = other.inside


def _indexing(index: Any) -> Any:
    """An index whose lists are tensors on the device, where torch makes them below the mode."""
    if isinstance(index, tuple):
        return tuple(map(_indexing, index))
    if not isinstance(index, list):
        return index
    return torch.tensor(index, dtype=None if index else torch.long, device=DEVICE)


class _Mode(TorchDispatchMode):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [one for one in tensors if isinstance(one, OnDevice)]
        asked = kwargs.get("device")
        goal = None if asked is None else torch.device(asked)
        if not there and (goal is None or goal.type != DEVICE.type):
            return func(*args, **kwargs)
        self.watch.operations += 1
        if there and len(there) < len(tensors):
            self._require_allowed(func, args, kwargs)
        self._note(func, args, kwargs, goal, bool(there))
        if goal is not None:
            kwargs["device"] = torch.device("cpu")
        kwargs.pop("pin_memory", None)
        inner = [tree_map_only(OnDevice, lambda one: one.inside, part) for part in (args, kwargs)]
        found = func(*inner[0], **inner[1])
        if func._overloadpacket in _COPYING:
            return args[0]
        if func._overloadpacket is aten._to_copy and goal is not None and goal.type != DEVICE.type:
            return found.clone() if found is inner[0][0] else found
        if goal is not None and goal.type != DEVICE.type:
            return found
        made = tree_map_only(Tensor, OnDevice, found)
        return return_and_correct_aliasing(func, args, kwargs, made) if there else made

    def _require_allowed(self, func: Any, args: Any, kwargs: Any) -> None:
        """Refuse tensors of both devices where CUDA does."""
        packet = func._overloadpacket
        if packet in _COPYING:
            return
        leaves: Sequence[Any] = tree_leaves((args, kwargs))
        if packet in _INDEXING and isinstance(args[0], OnDevice):
            indices = tree_leaves(args[1])
            leaves = [one for one in leaves if not any(one is index for index in indices)]
            numbers = packet not in {aten.index, aten._unsafe_index}
        else:
            numbers = torch.Tag.pointwise in func.tags or packet in _TAKE_NUMBERS
        written = _written(func, args, kwargs)
        for leaf in leaves:
            if not isinstance(leaf, Tensor) or isinstance(leaf, OnDevice):
                continue
            if leaf.ndim or not numbers or any(leaf is one for one in written):
                shapes = [
                    f"{'device' if isinstance(one, OnDevice) else 'cpu'}{list(one.shape)}"
                    for one in leaves
                    if isinstance(one, Tensor)
                ]
                raise MixedError(f"{func} of {', '.join(shapes)} in {_asker()}")

    def _note(self, func: Any, args: Any, kwargs: Any, goal: Any, any_there: bool) -> None:
        """Count what waits for the device."""
        packet = func._overloadpacket
        waits = packet in _WAITING and any_there
        if packet in _INDEXING and isinstance(args[0], OnDevice):
            truth = [
                one
                for one in tree_leaves(args[1])
                if isinstance(one, OnDevice) and one.dtype in (torch.bool, torch.uint8)
            ]
            # One mask and one number: CUDA fills, and needs not know how many.
            fills = packet not in {aten.index, aten._unsafe_index} and args[2].numel() == 1
            waits = bool(truth) and not fills
        if packet is aten.repeat_interleave:
            waits = any_there and kwargs.get("output_size") is None
        # Indices on the CPU are copied to what they index.
        copies = (
            packet in _INDEXING
            and isinstance(args[0], OnDevice)
            and any(
                isinstance(one, Tensor) and not isinstance(one, OnDevice)
                for one in tree_leaves(args[1])
            )
        )
        if packet in _COPYING:
            to, source = isinstance(args[0], OnDevice), isinstance(args[1], OnDevice)
            free = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
            waits, copies = source and not to, to and not source and not free
        if packet is aten._to_copy and goal is not None:
            source, to = isinstance(args[0], OnDevice), goal.type == DEVICE.type
            free = kwargs.get("non_blocking", False)
            waits, copies = source and not to, to and not source and not free
        if waits and "copy" in str(packet) and free:
            raise UnfinishedError(f"{func} non_blocking to the CPU in {_asker()}")
        for happened, into in ((waits, self.watch.waits), (copies, self.watch.copies)):
            if happened:
                into.append(Wait(str(packet).removeprefix("aten."), *_asker()))


def _written(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """The arguments an operation writes into."""
    found: list[Any] = []
    for number, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[number] if number < len(args) else kwargs.get(argument.name)
            found += tree_leaves(value)
    return found


def _asker() -> tuple[str, int]:
    """Function and line that asked for it: the nearest outside torch and this file."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path != _HERE and _TORCH not in path.parents and path.suffix == ".py":
            return f"{'/'.join(path.parts[-3:])}:{frame.f_code.co_name}", frame.f_lineno
        frame = frame.f_back
    return "unknown", 0


class _Backend:
    """What torch asks of a device's module."""

    def __getattr__(self, name: str) -> Any:
        simple = {
            "is_initialized": True,
            "is_available": False,
            "current_device": 0,
            "_is_in_bad_fork": False,
            "manual_seed_all": None,
            "device_count": 0,
            "get_amp_supported_dtype": [torch.bfloat16, torch.float16],
        }
        if name not in simple:
            raise AttributeError(name)
        return lambda *_: simple[name]


@cache
def _register() -> None:
    """Tell torch of the device, once a process."""
    # Found once: among them must be the makers that `second_device` puts others in place of.
    _device._device_constructors()

    class Hook(torch._C._acc.PrivateUse1Hooks):
        # No other test of this process shall find an accelerator.
        def is_available(self) -> bool:
            return bool(_WATCHING)

        def has_primary_context(self, index: int) -> bool:
            return True

        def is_built(self) -> bool:
            return True

    backend_registration._setup_privateuseone_for_python_backend(
        rename="second", backend_module=_Backend(), hook=Hook()
    )
    for name in _WHOLE:
        _KERNELS.impl(name, _never_called, "PrivateUse1")


def _never_called(*args: Any, **kwargs: Any) -> Any:
    """Stands for a kernel that `_Mode` comes before."""
    raise AssertionError


def missing() -> str:
    """Why there can be no second device here; empty where there can."""
    if torch.cuda.is_available():
        return "torch takes one kind of device beside the CPU, and a GPU is there"
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        return "this torch takes no device that is written in Python"
    return ""


@contextmanager
def second_device() -> Iterator[Watch]:
    """Let tensors be on `DEVICE`, and watch them."""
    _register()
    watch = Watch()
    # These copy numbers to the device below the mode.
    with ExitStack() as stack:
        for name in ("tensor", "as_tensor", "asarray"):
            stack.enter_context(mock.patch.object(torch, name, _moving(getattr(torch, name))))
        stack.enter_context(mock.patch.object(torch, "save", _saving(torch.save)))
        stack.enter_context(mock.patch.object(torch, "load", _loading(torch.load)))
        stack.enter_context(_Mode(watch))
        _WATCHING.append(watch)
        stack.callback(_WATCHING.pop)
        yield watch


def _moving(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A maker of tensors from numbers that makes them on the CPU and then moves them."""

    def made(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        if device is None or torch.device(device).type != DEVICE.type:
            return make(data, *args, device=device, **kwargs)
        if isinstance(data, OnDevice):
            return make(data, *args, **kwargs)
        asked = kwargs.pop("requires_grad", False)
        return make(data, *args, **kwargs).to(device).requires_grad_(asked)

    return made


def _saving(save: Callable[..., None]) -> Callable[..., None]:
    def saved(found: Any, *args: Any, **kwargs: Any) -> None:
        save(tree_map_only(OnDevice, lambda one: one.detach().cpu(), found), *args, **kwargs)

    return saved


def _loading(load: Callable[..., Any]) -> Callable[..., Any]:
    """All tensors go where `map_location` says, on the CPU without it."""

    def loaded(*args: Any, map_location: Any = "cpu", **kwargs: Any) -> Any:
        found = load(*args, map_location="cpu", **kwargs)
        return tree_map_only(Tensor, lambda one: one.to(map_location), found)

    return loaded


def move(module: nn.Module) -> nn.Module:
    """`module.to(DEVICE)` that leaves parameters tied which are, as on a real device."""
    moved: dict[int, Tensor] = {}
    kept: list[Tensor] = []

    def there(tensor: Tensor) -> Tensor:
        if id(tensor) not in moved:
            kept.append(tensor)
            new: Tensor = tensor.detach().to(DEVICE)
            if isinstance(tensor, nn.Parameter):
                new = nn.Parameter(new, requires_grad=tensor.requires_grad)
            moved[id(tensor)] = new
        return moved[id(tensor)]

    for part in module.modules():
        for store in (part._parameters, part._buffers):
            for name, tensor in store.items():
                if tensor is not None:
                    store[name] = there(tensor)
    return module
