"""Whether tensors are like earlier ones, asked at once."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from attention.torch_internals.names import private

_guards = private("_C._dynamo.guards.TensorGuards")


def like(*tensors: Tensor) -> Callable[..., bool] | None:
    """Whether other tensors are like these: a function of as many; None where this torch cannot tell.

    Alike are types, dtypes, devices, shapes, strides, ``requires_grad``, and what the dispatcher would look
    at, which follows from modes of the thread as well, but maybe not from that of gradients. Of several
    tensors that are one it says no. Nor does it know which tensors share memory.

    Code that torch has compiled asks the same guards before it runs. To ask each tensor for each property
    from Python takes longer than a launch.
    """
    if _guards is None:
        return None
    sizes, strides = [list(x.shape) for x in tensors], [list(x.stride()) for x in tensors]
    try:
        alike: Callable[..., bool] = _guards(
            *tensors, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides
        ).check
        return alike if alike(*tensors) else None
    except (AttributeError, TypeError, ValueError):  # guards of another version
        return None
