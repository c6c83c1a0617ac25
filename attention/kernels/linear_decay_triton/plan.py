"""What the plan of a call with gates says beyond that of linear-triton: tiles, groups, and what is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch

from attention.kernels.triton_common import card
from attention.kernels.triton_common.extents import Tiles, gluon_tiles
from attention.kernels.triton_common.plan import Plan, scanned

GROUP = 4
"""Chunks from one product of states to the next: each product reads as much as a chunk of two tensors."""


class DecayTiles(NamedTuple):
    """Tiles of Triton's passes, all on chunks of the same ``C`` tokens, whose gates are summed once.

    ``states`` and ``differentiate`` hold all of Dv and split D, ``attend`` holds all of D and splits Dv.
    """

    C: int
    states: Tiles
    attend: Tiles
    differentiate: Tiles

    @property
    def held(self) -> int:
        """Elements of a state that a program of ``attend`` holds."""
        return self.attend.held * self.attend.block


def decay_tiles(plan: Plan) -> DecayTiles:
    """The tiles of a plan: a program of wide heads fills half a multiprocessor with two chunks at once."""
    plan = replace(plan, gluon=False)
    each = plan.states_tiles(), plan.attend_tiles(), plan.differentiate_tiles()
    C = min(tiles.C for tiles in each)
    states, attend, differentiate = (tiles._replace(C=C) for tiles in each)
    if differentiate.held > 64:
        differentiate = differentiate._replace(num_stages=2)
    elif differentiate.block == 64 and plan.all_heads * plan.segments <= card.multiprocessors(plan.device):
        # A multiprocessor would wait for its only program: two halves share it.
        differentiate = differentiate._replace(block=32, blocks=-(-plan.key_width // 32))
    return DecayTiles(C, states, attend, differentiate)


def attend_tiles(plan: Plan) -> Tiles:
    """The tiles of the pass that makes the output and dv; a chunk of Gluon's is two of Triton's."""
    return gluon_tiles() if plan.gluon else decay_tiles(plan).attend


def sums_dtype(plan: Plan) -> torch.dtype:
    """The dtype of sums of gates: beside operands of float32 they are to lose nothing."""
    return torch.float32 if plan.narrow else torch.float64


def kept_shapes(plan: Plan) -> dict[str, tuple[int, ...]]:
    """Shapes of what a forward keeps for its backward."""
    count, heads = plan.segments - 1, plan.all_heads
    slots = count + 1 if scanned(count, decay_tiles(plan).held) else count
    return {
        "sums": (heads, plan.tokens),
        "S": (heads, slots, plan.value_width, plan.key_width),
        "totals": (heads, count),
    }
