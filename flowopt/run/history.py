"""The history of a run: chosen quantities at its accepted steps, in bounded memory."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flowopt.flows.flow import AbstractFlow, energy_rate, has_energy
from flowopt.objective import Evaluations
from flowopt.run.outcome import code_of
from flowopt.run.step import RunState, Stepper
from flowopt.tree import real_dtype

OF_ENERGY = ("energy", "kinetic", "rate", "defect")
QUANTITIES = ("time", "step", "value", "grad_norm", *OF_ENERGY)


class History(eqx.Module):
    """What was recorded, at the start and after every `stride`-th accepted step. `history["energy"]` is an array.

    - `time`: the flow's time, the sum of the accepted steps [time]; `step`: the last of them, 0 at the start.
    - `value`: R [loss]; `grad_norm`: |grad R|_2 [loss/params].
    - `energy`: V [loss]; `kinetic`: V - R, the part that is not the loss; `rate`: V' [loss/time].
    - `defect`: V1 - V0 - h V'0 of the last accepted step [loss]: how much less the energy fell than promised.
    """

    quantities: dict[str, Float[Array, " capacity"]]
    """Padded with NaN at the end; under `jit` and `vmap` read these."""
    stride: Int[Array, ""]
    """Accepted steps from one record to the next: 1, doubled whenever the memory is full."""
    elapsed: Float[Array, ""]
    """The flow's time so far [time]."""
    records: Int[Array, ""]
    """How many records there are."""

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.quantities:
            recorded = ", ".join(self.quantities)
            raise KeyError(f"`name`: {name!r} was not recorded; these were: {recorded}")
        return np.asarray(self.quantities[name])[: len(self)]

    def __len__(self) -> int:
        return int(self.records)

    @property
    def accepted(self) -> np.ndarray:
        """The number of accepted steps at each record."""
        return np.arange(len(self)) * int(self.stride)


class Recorder(eqx.Module):
    """Which quantities to record, in how much memory."""

    names: tuple[str, ...]
    capacity: int

    def start(self, stepper: Stepper, state: RunState) -> History:
        """The history with its first record."""
        dtype = real_dtype((state.value, state.params))
        zero = jnp.zeros((), dtype)
        known = {"time": zero, "step": zero, "defect": zero, **self._known(stepper, state)}
        empty = jnp.full(self.capacity, jnp.nan, dtype)
        quantities = {name: empty.at[0].set(known[name].astype(dtype)) for name in self.names}
        one = jnp.asarray(1, jnp.int32)
        return History(quantities, stride=one, elapsed=zero, records=one)

    def update(self, history: History, stepper: Stepper, old: RunState, new: RunState) -> History:
        """The history after an attempted step from `old` that led to `new`."""
        kept = (new.accepted > old.accepted) & (new.code != code_of("diverged"))
        n = new.accepted
        full = kept & (n == self.capacity * history.stride)
        history = jax.lax.cond(full, self._thinned, lambda h: h, history)
        dtype = history.elapsed.dtype
        step = old.step.astype(dtype)
        elapsed = history.elapsed + jnp.where(kept, step, 0)

        known = {"time": elapsed, "step": step, **self._known(stepper, new)}
        if "defect" in self.names:
            before = self._known(stepper, old)
            promised = old.step.astype(before["rate"].dtype) * before["rate"]
            known["defect"] = known["energy"] - before["energy"] - promised
        due = kept & (n % history.stride == 0)
        # Past the end where nothing is due: such a write is dropped.
        index = jnp.where(due, n // history.stride, self.capacity)
        quantities = {
            name: values.at[index].set(known[name].astype(dtype), mode="drop")
            for name, values in history.quantities.items()
        }
        records = jnp.where(due, index + 1, history.records)
        return History(quantities, history.stride, elapsed, records)

    def _known(self, stepper: Stepper, state: RunState) -> dict[str, Array]:
        """The quantities of a state, as far as they are asked for."""
        known = {"value": state.value, "grad_norm": state.grad_norm}
        if set(self.names) & set(OF_ENERGY):
            flow, at = stepper.method.flow, stepper.known_at(state, Evaluations())
            energy = flow.energy(state.params, state.memory, at)
            known |= {"energy": energy, "kinetic": energy - state.value.astype(energy.dtype)}
            known["rate"] = energy_rate(flow, state.y, at)
        return known

    def _thinned(self, history: History) -> History:
        """Every other record, in half of the memory."""
        half = self.capacity // 2

        def thin(values: Array) -> Array:
            return jnp.full_like(values, jnp.nan).at[:half].set(values[::2])

        quantities = {name: thin(values) for name, values in history.quantities.items()}
        return History(quantities, 2 * history.stride, history.elapsed, history.records // 2)


def make_recorder(
    history: Sequence[str] | str | bool | None, capacity: int, flow: AbstractFlow
) -> Recorder | None:
    """The recorder that `history` asks for; raises, naming the argument, for what cannot be recorded."""
    if history is None or history is False:
        return None
    known = tuple(q for q in QUANTITIES if has_energy(flow) or q not in OF_ENERGY)
    if history is True:
        names = known
    else:
        names = (history,) if isinstance(history, str) else tuple(history)
    for name in names:
        if name not in QUANTITIES:
            raise ValueError(
                f"`history` must name quantities among {', '.join(QUANTITIES)}; got {name!r}"
            )
        if name not in known:
            raise ValueError(
                f"`history`: {name!r} needs an energy, and {type(flow).__name__} defines none"
            )
    if not names:
        raise ValueError(f"`history` names nothing; choose among {', '.join(known)}, or None")
    if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 2 or capacity % 2:
        raise ValueError(f"`capacity` must be an even int >= 2; got {capacity!r}")
    return Recorder(names, capacity)
