"""Staggered Euler: the discretisation that gives back every momentum method."""

from flowopt.solvers.trial import AbstractFlowSolver, Trial
from flowopt.tree import add_scaled


class StaggeredEuler(AbstractFlowSolver):
    """memory1 = memory0 + h memory'(params0, memory0);  params1 = params0 + h params'(params0, memory1).

    Gauss-Seidel order: the params move with the new memory, and with the one gradient taken at the
    old params. Explicit Euler, which uses the old memory, gives back none of the momentum methods;
    this gives back all of them exactly. Without memory it is explicit Euler. Order 1, one gradient a
    step, no error estimate.   [symplectic Euler where the flow is Hamiltonian: Hairer, Lubich, Wanner 2006]
    """

    def order(self, terms):
        return 1

    def start(self, flow, y, at):
        return None

    def trial(self, flow, y, at, h, state):
        memory = flow.advance_memory(y.params, y.memory, at, h)
        velocity = flow.params_field(y.params, memory, at)
        params = add_scaled(y.params, h, velocity)
        candidate = y._replace(params=params, memory=memory)
        return Trial(candidate, None, at.elsewhere(params), True, state, (h, velocity))
