"""Networks to and from weights files: what the training stages write and `infer` reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sbr_core.config import TrainOptions
from sbr_core.config.base import Fraction, NonNegative, Positive
from sbr_core.errors import WeightsError
from sbr_core.io.weights import load_weights
from sbr_core.nn.generator import Generator
from sbr_core.nn.registrar import Registrar, build_registrar

FORMAT = 1
"""Of the header: another one is another meaning of its keys, and is refused."""
POLARITY = "tissue_bright"
"""Background 0, tissue above: how `prepare` leaves sections, whatever the file's polarity."""


PADDING_MULTIPLE = Generator.multiple
"""Sides of every network's input; the registrar is content with any even number."""

_MOST_SQUARINGS = 32
"""Of a velocity's integration; 7 are usual, and each one doubles the steps."""


def weights_header(
    kind: str,
    architecture: Mapping[str, Any],
    options: TrainOptions,
    *,
    working_pixel_mm: float | None,
    stain: str,
    fingerprint: str,
    revision: int,
    **preprocessing: Any,
) -> dict[str, Any]:
    """The header of a weights file.

    Parameters
    ----------
    kind : ``registrar``, the shared one alone, or ``method``, the networks of a method.
    architecture : keyword arguments that build the registrar again; of a method, those of each
        network that inference needs, by its name.
    working_pixel_mm, and the quantiles in `options` : the preprocessing that inference on any brain
        must repeat; no pixel size for a registrar that serves any.
    fingerprint : of the data it was trained on.
    revision : of the stage.
    preprocessing : what else inference must repeat.
    """
    return {
        "format": FORMAT,
        "kind": kind,
        "architecture": dict(architecture),
        # where images lay changes nothing
        "options": options.model_dump(mode="json", exclude={"memory_gb"}),
        "preprocessing": {
            "working_pixel_mm": working_pixel_mm,
            **options.intensity.model_dump(mode="json"),
            "padding_multiple": PADDING_MULTIPLE,
            "polarity": POLARITY,
            **preprocessing,
        },
        "stain": stain,
        "fingerprint": fingerprint,
        "revision": revision,
    }


def load_registrar(path: Path) -> tuple[Registrar, dict[str, Any]]:
    """The registrar of a weights file, in evaluation mode on the CPU, and the file's header.

    Raises
    ------
    WeightsError
        No file, not safetensors, another kind of network, a header that lacks something, or
        tensors that do not fit it.
    """
    tensors, header = load_weights(path)
    _check_header(path, "registrar", header)
    return _built(path, build_registrar, header["architecture"], tensors), header


def load_method(path: Path) -> tuple[Registrar | None, Generator | None, dict[str, Any]]:
    """The networks of a method's weights file, where it has them, and the file's header.

    Raises as `load_registrar`.
    """
    tensors, header = load_weights(path)
    _check_header(path, "method", header)
    networks: dict[str, Any] = dict.fromkeys(_NETWORKS)
    for name, architecture in header["architecture"].items():
        if name not in _NETWORKS:
            raise WeightsError(f"{path}: holds an unknown network '{name}'")
        networks[name] = _built(path, _NETWORKS[name], architecture, _tensors_of(name, tensors))
    return networks["registrar"], networks["generator"], header


def start_from(
    path: Path, modules: Mapping[str, nn.Module], header: Mapping[str, Any]
) -> list[str]:
    """Put the networks of another brain's weights file into those that are to be trained on.

    Parameters
    ----------
    modules : by name, as the method's task has them; changed in place.
    header : what the header of the weights that come out will be.

    Returns
    -------
    A line for each difference that training can make up for: intensities, rims, the stain.

    Raises
    ------
    WeightsError
        As `load_registrar`; another architecture, pixel size, or kind of images; a network that is
        not in the file.
    """
    tensors, start_header = load_weights(path)
    _check_header(path, "method", start_header)
    cure = "write the same in the configuration, or train from nothing (weights_from empty)"
    for name, ours in header["architecture"].items():
        theirs = start_header["architecture"].get(name)
        if theirs is None:
            raise WeightsError(f"{path}: holds no {name}: weights of another method?")
        for key in sorted(ours.keys() | theirs.keys()):
            here, there = (_plain(a.get(key)) for a in (ours, theirs))
            if here != there:
                raise WeightsError(f"{path}: {name}: {key} is {there}, here {here}; {cure}")
    lines = []
    for key, here in header["preprocessing"].items():
        there = start_header["preprocessing"].get(key)
        if key == "channels" or _plain(here) == _plain(there):
            continue
        if key in ("working_pixel_mm", "padding_multiple", "polarity", "registers"):
            raise WeightsError(f"{path}: {key} is {there}, here {here}; {cure}")
        lines.append(f"{path}: was trained with {key} {there}, goes on with {here}")
    channels = header["preprocessing"].get("channels") or ()
    lines += unseen_stains(path, start_header, header["stain"], channels)
    for name, module in modules.items():
        try:
            module.load_state_dict(_tensors_of(name, tensors))
        except RuntimeError as error:
            raise WeightsError(f"{path}: {name} does not fit: {error}; {cure}") from None
    return lines


def _tensors_of(network: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one network of several in a file, by their names in it."""
    prefix = f"{network}."
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def unseen_stains(
    path: Path, header: Mapping[str, Any], stain: str, channels: Sequence[str]
) -> list[str]:
    """A line for each kind of section that weights have not seen, as far as both are known.

    Parameters
    ----------
    stain : names of stains of the manifest, separated by commas, as in a header.
    channels : the signals that colours were separated into.
    """
    lines = []
    seen, here = (set(names.split(",")) - {""} for names in (header.get("stain", ""), stain))
    if seen and here - seen:
        lines.append(
            f"{path}: was trained on stain {', '.join(sorted(seen))}, not on"
            f" {', '.join(sorted(here - seen))}"
        )
    # before channels were written down, there was luminance only
    learnt = header["preprocessing"].get("channels") or ["grey"]
    if others := sorted(set(channels) - set(learnt)):
        lines.append(f"{path}: was trained on {', '.join(learnt)}, not on {', '.join(others)}")
    return lines


def _plain(value: Any) -> Any:
    """A value as JSON would give it back; numbers rounded, since pixel sizes go through float32."""
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


_NETWORKS = {"registrar": build_registrar, "generator": Generator}


def _check_header(path: Path, kind: str, header: Mapping[str, Any]) -> None:
    """WeightsError where a header is of something else, or lacks what inference reads.

    What is missing is not filled in by a guess: a file that was written before a key was would
    then be used with another preprocessing than it was trained with.
    """
    if header.get("format") != FORMAT or header.get("kind") != kind:
        raise WeightsError(
            f"{path}: expected weights of a {kind} (format {FORMAT}), found"
            f" {header.get('kind')!r} (format {header.get('format')!r})"
        )
    try:
        _HEADERS[kind].model_validate(header)
    except ValidationError as error:
        faults = [(".".join(map(str, fault["loc"])), fault) for fault in error.errors()]
        if missing := [key for key, fault in faults if fault["type"] == "missing"]:
            raise WeightsError(
                f"{path}: its header lacks {', '.join(missing)}, as that of an older version does;"
                " train these networks again"
            ) from None
        key, first = faults[0]
        raise WeightsError(f"{path}: damaged: {key}: {first['msg']}") from None


class _Part(BaseModel):
    """What inference reads of a part of a header; more may be written down there."""

    model_config = ConfigDict(allow_inf_nan=False)


class _Preprocessing(_Part):
    working_pixel_mm: Positive | None
    low_quantile: Fraction
    high_quantile: Fraction
    padding_multiple: int = Field(ge=1, le=1024)
    polarity: str
    channels: list[str] | None = None


class _OfMethod(_Preprocessing):
    working_pixel_mm: Positive
    registers: Literal["synthesised", "section"]
    synthesis_rim_px: NonNegative
    medium_share: Fraction
    medium_margin_px: NonNegative


class _RegistrarHeader(_Part):
    architecture: dict[str, Any]
    preprocessing: _Preprocessing
    stain: str = ""


class _MethodHeader(_Part):
    architecture: dict[str, dict[str, Any]]
    preprocessing: _OfMethod
    stain: str = ""


_HEADERS: dict[str, type[_Part]] = {"registrar": _RegistrarHeader, "method": _MethodHeader}


def _built(
    path: Path,
    network: Callable[..., nn.Module],
    architecture: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> Any:
    try:
        _check_architecture(network, architecture, tensors)
        module = network(**architecture)
        module.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise WeightsError(f"{path}: does not fit the architecture it states: {error}") from None
    return module.eval().requires_grad_(False)


_FILLING = (Tensor.normal_, Tensor.uniform_)


class _Unfilled(TorchFunctionMode):
    """New networks whose parameters are not set to anything.

    On "meta" there is nothing to set, and torch would import its compiler for it, which takes
    longer than many a chunk.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        # some functions of torch.nn.init come here themselves, of others what they call
        if func in _FILLING or getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _check_architecture(
    network: Callable[..., nn.Module],
    architecture: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> None:
    """ValueError where a file's tensors are not those of its network, before memory is given to it.

    A few bytes can state any number of layers and channels.
    """
    for key, value in architecture.items():
        n_layers = len(value) if isinstance(value, list) else 0
        if key == "residual_blocks" and isinstance(value, int):
            n_layers = value
        if n_layers > len(tensors):
            raise ValueError(f"{key}: {n_layers} layers, but {len(tensors)} tensors")
    if not 0 <= architecture.get("squaring_steps", 0) <= _MOST_SQUARINGS:
        raise ValueError(f"squaring_steps: expected at most {_MOST_SQUARINGS}")
    with torch.device("meta"), _Unfilled():  # shapes alone
        stated = network(**architecture).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name, tensor in stated.items():
        if shapes.get(name) != tuple(tensor.shape):
            raise ValueError(f"{name}: {tuple(tensor.shape)}, in the file {shapes.get(name)}")
