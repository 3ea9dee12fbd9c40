"""A graphics card that is not there, for tests: tensors that say they are on CUDA.

Their values are on the processor, so that everything runs that depends on data; `device`, `is_cuda`
and torch's own dispatch (autograd, autocast) say CUDA. What CUDA would refuse is refused here:
operands on different devices, a generator of another device than what it fills, a CUDA tensor to
numpy, numbers read before they arrived. What makes the processor wait for a card is counted, by
the line of the package that asks for it, and so is every operation that starts a kernel.
`FakeTensorMode` cannot do this: in a build without CUDA, gradients ask for a device guard that is
not linked, and without values there is no box of the tissue to cut to.

What it cannot tell: whether kernels exist, are right, or are fast, and whether memory suffices.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

import sbr_core

CARD = torch.device("cuda:0")
_PACKAGE = str(Path(sbr_core.__file__).parent)
_aten = torch.ops.aten

# what may have operands on two devices
_COPIES = {_aten.copy_.default, _aten._to_copy.default, _aten.set_.source_Tensor}
# indices may be on the processor, which costs a copy; the rest may not
_INDEXED = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default}
_INDEXED |= {_aten._unsafe_index.Tensor, _aten._index_put_impl_.default}
# how much comes out is known only once the card has counted
_COUNTED = {_aten.nonzero.default, _aten.masked_select.default, _aten._unique2.default}
_FREE = {
    _aten.detach.default,
    _aten.alias.default,
    _aten.empty_like.default,
    _aten.empty.memory_format,
    _aten.empty_strided.default,
    _aten.new_empty.default,
    _aten.new_empty_strided.default,
    _aten.set_.source_Tensor,
    _aten._local_scalar_dense.default,
}


class WrongDevice(AssertionError):
    """What CUDA would not have done. No RuntimeError, which the loop takes for a damaged file."""


class OnCard(Tensor):
    """A tensor whose values are on the processor, and which says it is on the card.

    It shares the memory of the tensor it is made of. The dispatch keys are those of CUDA, so that
    gradients and autocast take the ways they take there.
    """

    @staticmethod
    def __new__(cls, values: Tensor, requires_grad: bool = False) -> OnCard:
        return Tensor._make_subclass(cls, values, requires_grad, device_for_backend_keys=CARD)

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: CARD)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def __init__(self, values: Tensor, requires_grad: bool = False) -> None:
        self.values_ = values.detach()

    def __repr__(self, **_: Any) -> str:
        return f"OnCard({tuple(self.shape)}, {self.dtype})"

    def __reduce_ex__(self, protocol: int) -> Any:
        return values_of(self).__reduce_ex__(protocol)  # as it is read again: on the processor

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise WrongDevice(f"{func}: outside of `card()`")


def values_of(tensor: Any) -> Any:
    """A plain tensor with the values, sharing memory; anything else as it is."""
    if not isinstance(tensor, OnCard):
        return tensor
    with torch._C._DisableTorchDispatch():
        return tensor.values_


def where() -> str:
    """The innermost line of the package that is running."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PACKAGE):
            name = os.path.relpath(frame.f_code.co_filename, _PACKAGE)
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return "outside the package, or the backward pass"


class Card:
    """What happened on the card.

    Attributes
    ----------
    syncs : how often the processor waited for the card, by line and why. An upload from ordinary
        memory waits too: torch copies it with a synchronisation of the stream.
    launches : operations that start a kernel, at least one each, by operation.
    autocasts : kinds of device that `torch.autocast` was entered for while it was enabled.
    """

    def __init__(self) -> None:
        self.syncs: Counter[str] = Counter()
        self.launches: Counter[str] = Counter()
        self.autocasts: Counter[str] = Counter()
        self.asked_for: list[Tensor] = []
        self.started = 0

    def clear(self) -> None:
        """Begin to count anew."""
        for counter in (self.syncs, self.launches, self.autocasts):
            counter.clear()

    def starts(self, what: str) -> None:
        """The card is given something to do."""
        self.launches[what] += 1
        self.started += 1

    def waits(self, why: str) -> None:
        """The processor waits for the card."""
        self.syncs[f"{where()} ({why})"] += 1

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """One operation, as CUDA would have done it."""
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        here = [t for t in tensors if isinstance(t, OnCard)]
        elsewhere = [t for t in tensors if not isinstance(t, OnCard)]
        asked = kwargs.get("device")
        to_card = bool(here) if asked is None else torch.device(asked).type == "cuda"
        if not tensors and torch._C._current_autograd_node() is not None:
            to_card = True  # zeros for a gradient; its formula knows the values' device only
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type != ("cuda" if to_card else "cpu"):
            raise WrongDevice(f"{func}: a generator of {generator.device}")
        self._count(func, args, here, elsewhere, to_card)
        if (to_card or here) and not func.is_view and func not in _FREE:
            self.starts(str(func))
        on_cpu = tree_map(values_of, kwargs)
        if asked is not None:
            on_cpu["device"] = torch.device("cpu")
        plain_args = tree_map(values_of, args)
        out = func(*plain_args, **on_cpu)
        if not to_card:
            return out
        # what was changed in place is the tensor it was
        same = {id(p): a for p, a in zip(_flat(plain_args), _flat(args), strict=True)}
        return tree_map(
            lambda t: (
                (same.get(id(t)) if id(t) in same else OnCard(t)) if isinstance(t, Tensor) else t
            ),
            out,
        )

    def _count(
        self, func: Any, args: Any, here: list[Tensor], elsewhere: list[Tensor], to_card: bool
    ) -> None:
        """Count what waits, refuse what cannot be."""
        if func is _aten._local_scalar_dense.default and here:
            self.waits("item")
        elif func is _aten._to_copy.default and bool(here) != to_card:
            self.waits("download" if here else "upload")
        elif func is _aten.copy_.default and len(here) == 1 and elsewhere and elsewhere[0].dim():
            self.waits("upload" if isinstance(args[0], OnCard) else "download")
        elif func in _COUNTED and here:
            self.waits("a number of elements")
        elif func in _INDEXED and here:
            if not isinstance(args[0], OnCard):
                raise WrongDevice(f"{func}: indices on the card, what is indexed is not")
            for index in (i for i in args[1] if i is not None):
                if index.dtype in (torch.bool, torch.uint8):
                    self.waits("a mask as an index")
                elif not isinstance(index, OnCard):
                    self.waits("an index on the processor")
        elif here and elsewhere and func not in _COPIES:
            # a number may be on the processor, in operations element by element
            element_wise = torch.Tag.pointwise in func.tags or "_foreach" in str(func)
            if any(t.dim() for t in elsewhere) or not element_wise:
                shapes = [(tuple(t.shape), str(t.device)) for t in (*here, *elsewhere)]
                raise WrongDevice(f"{func}: operands on different devices: {shapes}")

    def event(self) -> Event:
        """What stands for `torch.cuda.Event`."""
        return Event(self)


class Event:
    """A place in the card's work; waiting for it is a wait unless more was started since."""

    def __init__(self, card: Card) -> None:
        self.card, self.at, self.downloads = card, -1, []

    def record(self) -> None:
        """Here."""
        self.at, self.downloads = self.card.started, list(self.card.asked_for)
        self.card.asked_for.clear()

    def synchronize(self) -> None:
        """Numbers that were asked for before this place have arrived."""
        assert self.at >= 0, "waits for an event that was not recorded"
        if self.at == self.card.started:
            self.card.waits("an event after which nothing was started")
        for tensor in self.downloads:
            tensor.on_its_way_ = False


def _flat(tree: Any) -> list[Any]:
    return tree_flatten(tree)[0]


class _Dispatch(TorchDispatchMode):
    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.card.run(func, args, dict(kwargs or {}))


class _Functions(TorchFunctionMode):
    """The few functions of torch that ask the build for CUDA before they dispatch."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if args and getattr(args[0], "on_its_way_", False):
            raise WrongDevice(f"{func}: the numbers have not arrived yet")
        if func in (torch.tensor, torch.as_tensor) and _is_card(kwargs.get("device")):
            return _moved(func(*args, **kwargs | {"device": "cpu"}), CARD)
        if func is Tensor.cpu:
            return _moved(args[0], torch.device("cpu"))
        if func is Tensor.cuda:
            return _moved(args[0], CARD)
        if func is Tensor.pin_memory:
            if isinstance(args[0], OnCard):
                raise WrongDevice("pin_memory of a tensor on the card")
            pinned = args[0].clone()
            pinned.pinned_ = True
            return pinned
        if func is Tensor.to:
            return self._to(args, kwargs)
        if func in (Tensor.numpy, Tensor.__array__) and isinstance(args[0], OnCard):
            raise WrongDevice("numpy() of a tensor on the card")
        return func(*args, **kwargs)

    def _to(self, args: Any, kwargs: dict[str, Any]) -> Tensor:
        device, dtype, at_once, memory_format = torch._C._nn._parse_to(
            *(a for a in args[1:] if not isinstance(a, Tensor)),
            **{k: v for k, v in kwargs.items() if k != "copy"},
        )
        others = [a for a in args[1:] if isinstance(a, Tensor)]
        if others:
            device, dtype = others[0].device, others[0].dtype
        out = args[0]
        if dtype is not None or memory_format is not None:
            like = {"dtype": dtype or out.dtype}
            like |= {"memory_format": memory_format} if memory_format else {}
            out = Tensor.to(out, **like)
        if device is None:
            return out
        if not at_once or isinstance(out, OnCard) == _is_card(device):
            return _moved(out, device)
        if _is_card(device):  # from ordinary memory even an asynchronous copy waits
            return OnCard(out.clone()) if getattr(args[0], "pinned_", False) else _moved(out, CARD)
        copied = values_of(out).clone()
        copied.on_its_way_ = True
        self.card.asked_for.append(copied)
        self.card.starts("a download")
        return copied


def _is_card(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    if isinstance(tensor, OnCard) == _is_card(device):
        return tensor
    return _aten._to_copy.default(tensor, device=CARD if _is_card(device) else torch.device("cpu"))


@contextlib.contextmanager
def card() -> Iterator[Card]:
    """A card, as long as the context lasts; yields what counts what happens."""
    made = Card()
    autocast = torch.autocast

    def noted(device_type: str, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("enabled", True):
            made.autocasts[device_type] += 1
        return autocast(device_type, *args, **kwargs)

    load, grouped = torch.load, torch._C._group_tensors_by_device_and_dtype

    def by_own_device(*args: Any, **kwargs: Any) -> Any:
        # asks the tensors themselves, not what holds their values
        found = grouped(*args, **kwargs).items()
        return {(lists[0][0].device, kind): (lists, at) for (_, kind), (lists, at) in found}

    def on_processor(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("map_location") is None:
            raise WrongDevice("torch.load without map_location")
        return load(*args, **kwargs)

    patches = {
        "torch.cuda._lazy_init": lambda: None,
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.is_bf16_supported": lambda *_, **__: True,
        "torch.cuda.current_device": lambda: 0,
        "torch.cuda.device_count": lambda: 1,
        "torch.cuda.mem_get_info": lambda *_: (1 << 33, 1 << 34),
        "torch.cuda.get_rng_state": lambda *_: torch.get_rng_state(),
        "torch.cuda.set_rng_state": lambda *_: None,
        "torch.cuda.Event": made.event,
        "torch.autocast": noted,
        "torch.load": on_processor,
        "torch._C._group_tensors_by_device_and_dtype": by_own_device,
        "torch.utils._foreach_utils._foreach_supported_types": [Tensor, nn.Parameter, OnCard],
    }
    with contextlib.ExitStack() as stack:
        for name, value in patches.items():
            stack.enter_context(mock.patch(name, value))
        # a network that moves to the card gets new parameters: old ones keep their memory
        overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrite)
        stack.enter_context(_Functions(made))
        stack.enter_context(_Dispatch(made))
        yield made
