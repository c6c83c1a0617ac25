"""The Gluon passes as launches."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from torch import Tensor

from attention.kernels.triton.launcher import Launch
from attention.kernels.triton.launches import Launches, Pair, State
from attention.kernels.triton.plan import WHOLE


class GluonLaunches(Launches):
    """The same passes in Gluon, which hold all of both widths."""

    def whole(self, name: str, parts: int, tiles: int, values: tuple[Any, ...]) -> Launch:
        """A pass over ``parts`` segments of each head, whose first tensors are moved in ``tiles``."""
        passes, layout = _gluon()
        blocks = [[1, 1, WHOLE, WHOLE]] * tiles
        return Launch(
            passes[name], self.heads * parts, blocks, (*self.shape, *values), 8, lasting=True, layout=layout
        )

    def states(
        self, x: Tensor, y: Tensor, count: int, upstream: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> Pair:
        """As above, of all segments where there is an upstream."""
        S, z = self.buffer(self.segments, self.D, self.E), self.buffer(self.segments, self.D)
        phi, ragged = self.how[0], self.N % WHOLE != 0
        if upstream is None:
            self.launch(
                ("states", count), [x, y, S, z], lambda: self.whole("states", count, 2, (count, phi, ragged))
            )
        else:
            self.launch(
                ("states_back",), [x, y, *upstream, S, z],
                lambda: self.whole("states_back", self.segments, 3, (phi,)),
            )  # fmt: skip
        return S, z

    def attend(
        self, a: Tensor, b: Tensor, c: Tensor, out: Tensor, inv: Tensor, state: State, *,
        reverse: bool, keep: bool = False,
    ) -> None:  # fmt: skip
        """As above."""
        switches = (self.causal, reverse, keep, *state.switches())
        values = (self.eps, *switches, self.how[0], self.D != WHOLE)
        self.launch(
            ("attend", *switches), [a, b, c, out, inv, *state.pointers(inv)],
            lambda: self.whole("attend", self.segments, 4, values),
        )  # fmt: skip

    def differentiate(
        self, a: Tensor, b: Tensor, x: Tensor, y: Tensor, out: Tensor, rows: Pair, state: State, *,
        reverse: bool,
    ) -> None:  # fmt: skip
        """As above."""
        switches = (self.causal, reverse, *state.switches())
        self.launch(
            ("differentiate", *switches), [a, b, x, y, out, *rows, *state.pointers(rows[0])],
            lambda: self.whole("differentiate", self.segments, 5, (*switches, self.how[0])),
        )  # fmt: skip


@lru_cache(maxsize=1)
def _gluon() -> tuple[dict[str, Any], Any]:
    """The passes in Gluon by name, and the layout of a tile in shared memory as a descriptor wants it."""
    from triton.experimental.gluon import language as gl

    from attention.kernels.triton.gluon import attend, differentiate, states

    passes = {
        "states": states.states,
        "states_back": states.states_back,
        "attend": attend.attend,
        "differentiate": differentiate.differentiate,
    }
    return passes, gl.NVMMASharedLayout(128, 16, 4)
