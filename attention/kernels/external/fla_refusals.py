"""What flash-linear-attention 0.6 cannot serve, by its own sources."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.util import find_spec

import torch

from attention.case import INFERENCE, Case
from attention.kernels.external.packages import version
from attention.kernels.forms.plain import plain_refusal

CARRIES_NORMALISER = "0.6.0"
"""From which version on the state of its linear attention holds z beside S, where ``normalize``."""
MOST_KEYS = 256
"""The widest keys of the delta rules."""
MISCOMPILING = (3, 4, 0), (3, 7, 1)
"""From which Triton on, and up to which, the gated backward is wrong on Hopper cards."""


def refusal(case: Case) -> str | None:
    """The reason why no gated kernel of flash-linear-attention serves a case, or None."""
    return _any_refusal(case) or plain_refusal(case)


def linear_refusal(case: Case) -> str | None:
    """The reason why linear attention cannot serve a case, or None."""
    found = version("flash-linear-attention") or CARRIES_NORMALISER
    if case.phase in INFERENCE and _numbers(found) < _numbers(CARRIES_NORMALISER):
        return (
            f"flash-linear-attention {found} keeps no sum of keys to normalise by; take {CARRIES_NORMALISER}"
        )
    # In a decode all keys but those of the new tokens are in the state.
    new = replace(case, phase="forward", seq_len=case.queries if case.phase == "decode" else case.seq_len)
    return _any_refusal(case) or plain_refusal(new)


def _any_refusal(case: Case) -> str | None:
    if case.device != "cuda":
        return f"flash-linear-attention compiles for CUDA devices only, and the case is on {case.device}"
    if not case.causal:
        return "flash-linear-attention has no bidirectional form"
    if case.dtype == "float64":
        return "flash-linear-attention computes in float32, bfloat16 and float16, not float64"
    return None


def decay_refusal(case: Case) -> str | None:
    """The reason why simple gated linear attention cannot serve a case, or None."""
    return refusal(case) or _odd_widths(case) or _gated_backward(case)


def delta_refusal(case: Case) -> str | None:
    """The reason why the gated delta rule cannot serve a case, or None."""
    # With tilelang it does not use Triton for what Triton miscompiles.
    return refusal(case) or _wide_keys(case) or (None if find_spec("tilelang") else _gated_backward(case))


def kda_refusal(case: Case) -> str | None:
    """The reason why Kimi delta attention cannot serve a case, or None."""
    return refusal(case) or _wide_keys(case)


def _wide_keys(case: Case) -> str | None:
    if case.head_dim <= MOST_KEYS:
        return None
    return f"flash-linear-attention's delta rules take keys of at most {MOST_KEYS}, not {case.head_dim}"


def _odd_widths(case: Case) -> str | None:
    if not case.backward or case.dtype == "float32" or case.head_dim % 2 == case.value_dim % 2 == 0:
        return None
    return f"flash-linear-attention's backward in {case.dtype} takes even widths only"


def _gated_backward(case: Case) -> str | None:
    first, fixed = MISCOMPILING
    if not case.backward or not _on_hopper() or not first <= _triton() < fixed:
        return None
    found, needed = (".".join(map(str, one)) for one in (_triton(), fixed))
    return (
        f"flash-linear-attention refuses its gated backward on Hopper cards with Triton {found}, which "
        f"computes it wrong; it takes Triton {needed} or later"
    )


def _on_hopper() -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == 9


def _triton() -> tuple[int, ...]:
    """The version of Triton in three numbers; without one, of none."""
    return _numbers(version("triton") or "0.0.0")


def _numbers(version: str) -> tuple[int, ...]:
    """The first three numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
