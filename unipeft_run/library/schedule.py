"""AdaLoRA in the user's own training loop: its penalty on the loss, and its schedule of ranks."""

from __future__ import annotations

from torch import nn

from unipeft_run.deltas.hooks import add_hook
from unipeft_run.errors import UserError
from unipeft_run.library.store import NamedDelta, require_store
from unipeft_run.tuners.adalora import AddPenalty, RankSchedule
from unipeft_run.tuners.adapter import find_adapter
from unipeft_run.tuners.training import penalty_weight, update_hook


def rank_schedule(model: nn.Module, total_steps: int) -> RankSchedule:
    """Return the rank schedule of the active delta, which must be AdaLoRA.

    Call it with the number of each update, from 1 to `total_steps`, after `optimizer.step()` and
    before the gradients are cleared: `schedule(step)`. It prunes singular values, and continues
    after a switch. Raises UserError for any other method, and if the method's fields leave no
    update to prune at.
    """
    store = require_store(model)
    schedule = update_hook(model, total_steps)
    if not isinstance(schedule, RankSchedule):
        active = ", ".join(store.active) or "no delta"
        raise UserError(f"rank_schedule works with peft/adalora only, and {active} is active")
    store.named[store.active[0]].schedule = schedule
    return schedule


def start_training_parts(model: nn.Module, delta: NamedDelta) -> None:
    """Add the penalty of the library's method to the training loss; resume its rank schedule.

    The hook is removed with the method's modules.
    """
    if weight := penalty_weight(model):
        add_hook(model, AddPenalty(weight, only_in_training=True).add)
    adapter = find_adapter(model)
    if adapter is not None and delta.schedule is not None:
        delta.schedule.resume(adapter.wrapper.base_model)
