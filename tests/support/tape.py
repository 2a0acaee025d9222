"""A recorder with the semantics of a CUDA graph, on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Call:
    """An operator with its arguments. `results`: None for one that is part of an argument."""

    operator: Any
    args: Any
    kwargs: Any
    results: list[Tensor | None]

    def repeat(self) -> None:
        found = tensors(self.operator(*self.args, **self.kwargs))
        for kept, new in zip(self.results, found, strict=True):
            if kept is not None:
                kept.copy_(new)


class Tape(TorchDispatchMode):
    """Records the operators that run inside it, with the tensors that they read and write.

    `written` holds the memory that they write to, with its content before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.written: dict[int, tuple[UntypedStorage, UntypedStorage]] = {}

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        assert operator is not torch.ops.aten._local_scalar_dense.default, "the host reads a value"
        for tensor in written_by(operator, args, kwargs):
            storage = tensor.untyped_storage()
            self.written.setdefault(storage.data_ptr(), (storage, storage.clone()))
        result = operator(*args, **kwargs)
        given = {place(tensor) for tensor in tensors((args, kwargs))}
        results = [None if place(new) in given else new for new in tensors(result)]
        self.calls.append(Call(operator, args, kwargs, results))
        return result


class TapeRecorder:
    """Repeats the recorded operators alone: the numbers and tensors of Python stay as they were."""

    recordings = 0

    def __init__(self, purpose: str = "") -> None:
        del purpose

    def warm_up(self, function: Callable[[], object]) -> None:
        function()

    def record(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Return a function that repeats the operators of `function` and returns its result."""
        type(self).recordings += 1
        with Tape() as tape:
            result = function()
        for storage, before in tape.written.values():  # recording has no effect
            storage.copy_(before)

        def replay() -> Tensor:
            with torch.no_grad():
                for call in tape.calls:
                    call.repeat()
                return result.clone()

        return replay


def written_by(operator: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    for position, argument in enumerate(operator._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            yield from tensors(value)


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
