"""Parareal gives what its fine solver gives, and the fine solver what an exact solution says."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from pipelab.flow import Flow, Resource, Stage
from pipelab.teaching.flows.parareal import Diffusion, Parareal


def run(solver):
    """All jobs, one after another."""
    done = []
    for i, task in enumerate(solver.tasks):
        fine = solver.fine(task, *(done[j] for _, j in solver.fine_needs(i)))
        done.append(solver.sweep(fine, *(done[j] for _, j in solver.sweep_needs(i))))
    return done


def error(state, truth):
    return float((state - truth).abs().max() / truth.abs().max())


class Cooling(Diffusion):
    """No source."""

    def heat(self, time):
        return torch.zeros(self.points, self.points)


def test_the_fine_solver_follows_a_solution_in_closed_form():
    """A sine in both directions decays by exp(-2 pi² rate t)."""
    problem = Cooling(points=60, rate=0.05)
    wave = torch.outer(torch.sin(np.pi * problem.grid), torch.sin(np.pi * problem.grid))
    exact = wave * np.exp(-2 * np.pi**2 * 0.05)
    coarse, fine = (error(problem.solve(wave, 0, 1, steps), exact) for steps in (50, 400))
    assert fine < 3e-3
    assert coarse / fine > 5  # first order


def test_heat_comes_from_the_spot_only():
    problem = Diffusion(points=40)
    state = problem.solve(torch.zeros(40, 40, dtype=torch.float64), 0, 0.1, 20)
    row, column = divmod(int(state.argmax()), 40)
    angle = 2 * np.pi * problem.turns * 0.1
    assert problem.grid[row] == pytest.approx(0.5 + 0.25 * np.cos(angle), abs=0.1)
    assert problem.grid[column] == pytest.approx(0.5 + 0.25 * np.sin(angle), abs=0.1)
    assert (state >= 0).all()


def test_each_iteration_comes_nearer_to_the_fine_solution():
    solver = Parareal(Diffusion(points=40), slices=6, iterations=3, fine_steps=40, coarse_steps=1)
    truth = solver.serial()
    errors = [error(end, truth) for end in solver.ends(run(solver))]
    assert all(later < earlier / 3 for earlier, later in pairwise(errors))


def test_after_k_iterations_the_first_k_states_are_exact():
    """So iteration k begins with slice k - 1, and N iterations are the fine solution."""
    solver = Parareal(Diffusion(points=20), slices=4, iterations=4, fine_steps=10, coarse_steps=1)
    assert solver.tasks[:9] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3), (2, 1)]
    done = dict(zip(solver.tasks, run(solver), strict=True))
    state = solver.start
    for n in range(4):
        state = solver.problem.solve(state, n / 4, (n + 1) / 4, 10)
        assert error(done[n + 1, n].end, state) < 1e-12


def test_jobs_need_earlier_items_only():
    solver = Parareal(Diffusion(points=20), slices=5, iterations=3, fine_steps=10, coarse_steps=1)
    for i in range(len(solver.tasks)):
        assert all(j < i for _, j in (*solver.fine_needs(i), *solver.sweep_needs(i)))


def test_as_a_flow_with_any_number_of_workers_it_gives_the_same():
    solver = Parareal(Diffusion(points=20), slices=4, iterations=2, fine_steps=10, coarse_steps=1)
    for workers in (1, 3):
        pool = Resource("core", workers)
        flow = Flow(
            Stage("fine", solver.fine, pool, needs=solver.fine_needs, kind=solver.kind, buffer=None),
            Stage("sweep", solver.sweep, pool, needs=solver.sweep_needs, kind=solver.kind, buffer=None),
        )
        ends = solver.ends(flow.run(solver.tasks, progress=False).results)
        assert all(map(torch.equal, ends, solver.ends(run(solver))))
