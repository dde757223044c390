"""A network of single slices, made one of several adjacent slices.

Enters: a `Generator` and a larger depth. Leaves: one that sees the neighbours too and gives exactly
what the old one gave until it learns what they are good for.
"""

from collections.abc import Mapping

import torch

from ..errors import ConfigurationError
from .generator import Generator, build_generator, depth_of, describe_generator


def deepened(
    generator: Generator, name: str, options: Mapping[str, int], depth: int
) -> tuple[Generator, str]:
    """The same network for `depth` adjacent slices, the weights of all neighbours being zero.

    Parameters
    ----------
    generator : Generator
        Of one slice.
    name, options
        Its preset and options.
    depth : int
        Odd.

    Returns
    -------
    Generator
        On the CPU.
    str
        Its description, as the card of a model has it.

    Raises
    ------
    ConfigurationError
        A generator of several slices, an even depth, or a preset whose layers depend on its depth
        in more than their inputs.
    """
    if depth_of(name, options) != 1 or depth % 2 == 0:
        raise ConfigurationError(
            f"expected to make a network of one slice one of an odd number of slices, got "
            f"{describe_generator(name, options)} and a depth of {depth}"
        )
    deep_options = {**options, "depth": depth}
    deep = build_generator(name, **deep_options)
    weights = generator.state_dict()
    fitted = {key: _fitted(weights[key], there) for key, there in deep.state_dict().items()}
    deep.load_state_dict(fitted)
    return deep.eval(), describe_generator(name, deep_options)


def _fitted(weight: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """A weight whose inputs, the slice and what follows it, have neighbours on both sides."""
    if weight.shape == there.shape:
        return weight
    more = there.shape[1] - weight.shape[1]
    fitted = torch.zeros_like(there)
    fitted[:, more // 2] = weight[:, 0]
    fitted[:, 1 + more :] = weight[:, 1:]
    return fitted
