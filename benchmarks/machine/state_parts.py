"""The parts of a process's state that measurements depend on, and how each is read and written."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.backends import cuda

from attention.torch_internals.dispatcher import default_device


def told(before: Any, after: Any) -> str:
    """A change of plain values, as in " 2 -> 7"."""
    return f" {before} -> {after}"


def untold(before: Any, after: Any) -> str:
    """A change of values that say nothing to a reader."""
    return ""


def names(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """A change of named values, of which only the names are told: an environment holds secrets."""
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return f" ({', '.join(sorted(changed))})"


class Part(NamedTuple):
    """One part of the state: its name, how it is read and written, and how a change of it is told."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    tell: Callable[[Any, Any], str] = told


# --- parts that have no setter of one value ----------------------------------------------------------

_held: list[object] = []
_SIGNALS = [one for one in signal.Signals if one in signal.valid_signals()]


def _set_inference_mode(on: bool) -> None:
    mode = torch.inference_mode(on)  # lasts as long as somebody holds it
    mode.__enter__()
    _held.append(mode)


def _set_random(write: Callable[[torch.Tensor], None], state: bytes) -> None:
    write(torch.frombuffer(bytearray(state), dtype=torch.uint8))


def _numpy_random() -> tuple[Any, ...]:
    state: Any = np.random.get_state()
    name, keys, *rest = state
    return name, keys.tobytes(), *rest


def _set_numpy_random(state: tuple[Any, ...]) -> None:
    name, keys, *rest = state
    np.random.set_state((name, np.frombuffer(keys, dtype=np.uint32), *rest))


def _set_environment(before: Mapping[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def _handlers() -> dict[str, Any]:
    return {one.name: signal.getsignal(one) for one in _SIGNALS}


def _set_handlers(before: Mapping[str, Any]) -> None:
    now = _handlers()
    for one in _SIGNALS:
        handler = before[one.name]
        if handler != now[one.name] and handler is not None:  # None: set by something other than Python
            signal.signal(one, handler)


def _in_use(read: Callable[[], Any]) -> Any:
    """What a card says once it is in use: asking before would put it into use.

    Raises:
        RuntimeError: it is not in use.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        raise RuntimeError("no card is in use")
    return read()


def _on_card(name: str, read: Callable[[], Any], write: Callable[[Any], object]) -> Part:
    return Part(name, partial(_in_use, read), write, untold)


def _attribute(path: str) -> Part:
    *owners, name = path.split(".")
    owner = reduce(getattr, owners, torch)
    return Part(f"torch.{path}", partial(getattr, owner, name), partial(setattr, owner, name))


def _of_device(name: str, read: Callable[[str], Any], write: Callable[[str, Any], object]) -> list[Part]:
    return [Part(f"{name} on {one}", partial(read, one), partial(write, one)) for one in ("cpu", "cuda")]


# --- the table ---------------------------------------------------------------------------------------

ATTRIBUTES = (
    "backends.cuda.matmul.allow_tf32",
    "backends.cuda.matmul.allow_fp16_accumulation",
    "backends.cuda.matmul.allow_fp16_reduced_precision_reduction",
    "backends.cuda.matmul.allow_bf16_reduced_precision_reduction",
    "backends.cudnn.enabled", "backends.cudnn.benchmark", "backends.cudnn.deterministic",
    "backends.cudnn.allow_tf32", "backends.mkldnn.enabled", "backends.mkldnn.deterministic",
    "backends.opt_einsum.enabled", "utils.deterministic.fill_uninitialized_memory",
    # The newer settings come last, because the older ones overwrite them.
    "backends.fp32_precision", "backends.cuda.matmul.fp32_precision", "backends.cudnn.fp32_precision",
    "backends.mkldnn.fp32_precision", "backends.mkldnn.matmul.fp32_precision",
)  # fmt: skip


def _umask() -> int:
    """The mask of new files, which can only be read by setting another."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


PARTS = (
    # The first ones decide how the tensors are made that later ones write.
    Part("default device", default_device, torch.set_default_device),
    Part("default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Part("inference mode", torch.is_inference_mode_enabled, _set_inference_mode),
    Part("grad mode", torch.is_grad_enabled, torch.set_grad_enabled),
    Part("umask", _umask, os.umask),
    Part("torch threads", torch.get_num_threads, torch.set_num_threads),
    Part("torch inter-op threads", torch.get_num_interop_threads, torch.set_num_interop_threads),
    *_of_device("autocast", torch.is_autocast_enabled, torch.set_autocast_enabled),
    *_of_device("autocast dtype", torch.get_autocast_dtype, torch.set_autocast_dtype),
    Part("autocast cache", torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
    Part("anomaly detection", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    Part("determinism", torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    Part("float32 precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    *(_attribute(path) for path in ATTRIBUTES),
    Part("SDPA flash", cuda.flash_sdp_enabled, cuda.enable_flash_sdp),
    Part("SDPA efficient", cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp),
    Part("SDPA math", cuda.math_sdp_enabled, cuda.enable_math_sdp),
    Part("SDPA cuDNN", cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp),
    Part("flushing of denormals", lambda: sys.float_info.min / 2 == 0, torch.set_flush_denormal),
    Part("torch's random state", lambda: torch.get_rng_state().numpy().tobytes(),
         partial(_set_random, torch.set_rng_state), untold),
    Part("numpy's random state", _numpy_random, _set_numpy_random, untold),
    Part("Python's random state", random.getstate, random.setstate, untold),
    _on_card("the card's random state", lambda: torch.cuda.get_rng_state().numpy().tobytes(),
             partial(_set_random, torch.cuda.set_rng_state)),
    _on_card("current card", torch.cuda.current_device, torch.cuda.set_device),
    _on_card("current stream", torch.cuda.current_stream, torch.cuda.set_stream),
    Part("numpy's error handling", np.geterr, lambda before: np.seterr(**before), names),
    Part("working folder", os.getcwd, os.chdir, untold),
    Part("environment", lambda: dict(os.environ), _set_environment, names),
    Part("signal handlers", _handlers, _set_handlers, names),
    Part("garbage collector", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    Part("garbage collector's thresholds", gc.get_threshold, lambda before: gc.set_threshold(*before)),
    Part("trace function", sys.gettrace, sys.settrace, untold),
    Part("profile function", sys.getprofile, sys.setprofile, untold),
    Part("recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Part("switch interval", sys.getswitchinterval, sys.setswitchinterval),
)  # fmt: skip
"""All parts, in the order in which they are put back."""

if hasattr(os, "sched_setaffinity"):
    PARTS += (
        Part("cores", lambda: os.sched_getaffinity(0), lambda cores: os.sched_setaffinity(0, cores)),
        Part("niceness", lambda: os.getpriority(os.PRIO_PROCESS, 0),
             lambda nice: os.setpriority(os.PRIO_PROCESS, 0, nice)),
    )  # fmt: skip
