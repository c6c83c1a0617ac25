"""What a layer of standard attention keeps of a context: keys and values."""

from __future__ import annotations

import torch
from torch import Tensor

from attention.kernels.forms.masks import check_padding
from attention.kernels.registry import Kernel
from attention.state import State, check_kept_dtype


class KVCache:
    """Keys and values of the tokens so far, in memory with room for more.

    The first tokens take as much memory as they need; later ones double it where it does not suffice. Given
    ``max_len``, all memory is taken at once and never more. Where a backward will read the keys, appending
    copies them.

    Args:
        batch: sequences B.
        kv_heads: heads of keys and values, Hkv.
        head_dim: width D of a key.
        value_dim: width Dv of a value; None: as wide as a key.
        max_len: the most tokens there will be; None: not known.
        dtype: of keys and values; None: torch's default.
        device: where they are.

    Raises:
        TypeError: a ``max_len`` that is no integer, or no dtype.
        ValueError: a ``max_len`` below 1, or a dtype in which attention is not computed.
    """

    def __init__(
        self,
        batch: int,
        kv_heads: int,
        head_dim: int,
        value_dim: int | None = None,
        *,
        max_len: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if max_len is not None and (not isinstance(max_len, int) or isinstance(max_len, bool)):
            raise TypeError(f"max_len must be an integer, the most tokens there will be; got {max_len!r:.60}")
        if max_len is not None and max_len < 1:
            raise ValueError(f"max_len must be at least 1 token, got {max_len}")
        check_kept_dtype("a KVCache", torch.get_default_dtype() if dtype is None else dtype)
        self.length, self.max_len = 0, max_len
        shape = batch, kv_heads, max_len or 0
        self._keys = torch.empty(*shape, head_dim, dtype=dtype, device=device)
        values = head_dim if value_dim is None else value_dim
        self._values = torch.empty(*shape, values, dtype=dtype, device=device)
        self._ignored: Tensor | None = None  # [B, 1, room, 1], to grow as the others do

    @property
    def keys(self) -> Tensor:
        """``[B, Hkv, length, D]``, a view that the next tokens leave as it is."""
        return self._keys[:, :, : self.length]

    @property
    def values(self) -> Tensor:
        """``[B, Hkv, length, Dv]``, likewise."""
        return self._values[:, :, : self.length]

    @property
    def key_padding_mask(self) -> Tensor | None:
        """``[B, length]``, True where a key is ignored; None where none is."""
        return None if self._ignored is None else self._ignored[:, 0, : self.length, 0]

    @property
    def bytes(self) -> int:
        """Bytes taken, those that wait for tokens included."""
        held = [x for x in (self._keys, self._values, self._ignored) if x is not None]
        return sum(x.numel() * x.element_size() for x in held)

    def append(self, keys: Tensor, values: Tensor, key_padding_mask: Tensor | None = None) -> None:
        """Keep the keys ``[B, Hkv, T, D]`` and values ``[B, Hkv, T, Dv]`` of T more tokens.

        Args:
            keys: of the dtype and on the device of the cache.
            values: likewise.
            key_padding_mask: ``[B, T]``, True where a key is to be ignored.

        Raises:
            TypeError: a mask that is none of bool.
            ValueError: other shapes, dtypes or devices than those of the cache, or more tokens than it holds.
        """
        for what, x, like in (("keys", keys, self._keys), ("values", values, self._values)):
            same = (
                x.shape[:2] == like.shape[:2] and x.shape[2] == keys.shape[2] and x.shape[3] == like.shape[3]
            )
            if not (same and x.dtype == like.dtype and x.device == like.device):
                batch, heads, _, width = like.shape
                wanted = f"[{batch}, {heads}, T, {width}] in {like.dtype} on {like.device}"
                found = f"{list(x.shape)} in {x.dtype} on {x.device}"
                raise ValueError(f"the cache keeps {what} {wanted}; got {found}")
        length = self.length + keys.shape[2]
        if self.max_len is not None and length > self.max_len:
            raise ValueError(f"the cache holds max_len = {self.max_len} tokens; {length} are too many")
        room = self._keys.shape[2]
        room = room if length <= room else max(length, 2 * room)
        if key_padding_mask is not None or self._ignored is not None:
            self._ignored = _appended(*self._padding(keys, key_padding_mask), self.length, room)
        self._keys = _appended(self._keys, keys, self.length, room)
        self._values = _appended(self._values, values, self.length, room)
        self.length = length

    def _padding(self, keys: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """What is ignored of the tokens so far, and of the new ones."""
        before, batch = self._ignored, keys.shape[0]
        if before is None:
            before = keys.new_zeros(batch, 1, self.length, 1, dtype=torch.bool)
        if mask is None:
            mask = keys.new_zeros(batch, keys.shape[2], dtype=torch.bool)
        return before, check_padding(mask, keys)[:, None, :, None]

    def clone(self) -> KVCache:
        """A copy, as a second continuation of the same tokens needs one."""
        other = KVCache.__new__(KVCache)
        other.length, other.max_len = self.length, self.max_len
        other._keys, other._values = self._keys.clone(), self._values.clone()
        other._ignored = None if self._ignored is None else self._ignored.clone()
        return other


def kept_by(kernel: Kernel) -> type[KVCache] | type[State]:
    """What a causal layer keeps of a context for this kernel.

    Raises:
        ValueError: a kernel that cannot go on from any context.
    """
    if kernel.family == "standard":
        return KVCache
    if kernel.family == "linear" and kernel.takes("initial_state"):
        return State
    raise ValueError(f"{kernel.name} keeps no context; 'standard' and 'linear' do")


def reusable(*tensors: Tensor) -> bool:
    """Whether these tensors may be overwritten: no backward reads them, and torch lets them be written."""
    if any(x.requires_grad for x in tensors):
        return False
    if torch.compiler.is_compiling():  # which knows of no inference mode
        return True
    return torch.is_inference_mode_enabled() or not any(x.is_inference() for x in tensors)


def _appended(buffer: Tensor, rows: Tensor, start: int, room: int) -> Tensor:
    """Rows ``[.., .., T, ..]`` behind the first ``start`` of a buffer, in place where there is room."""
    if buffer.shape[2] < room or not reusable(buffer):
        grown = rows.new_empty(*buffer.shape[:2], room, buffer.shape[3])
        grown[:, :, :start] = buffer[:, :, :start]
        buffer = grown
    buffer[:, :, start : start + rows.shape[2]] = rows
    return buffer
