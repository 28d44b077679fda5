"""Hessian-free optimisation against explicit matrices, closed forms and sums done by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn, tensor
from torch.nn import functional as F
from torch.testing import assert_close

from nmt.hessian_free import (
    HessianFree,
    Objective,
    Outputs,
    best_iterate,
    conjugate_gradients,
    flatten,
    gauss_newton,
    has_stalled,
    line_search,
    next_damping,
    softmax_cross_entropy,
    squared_error,
    unflatten,
)

# torch's own, at the first forward derivative of a process

# so much that every iterate of conjugate gradients does better than the one before, and the last is the step
DAMPING = 30.0


class Net(nn.Module):
    """A recurrent net that reads x (T, B, 2) and names one of 3 classes at the end."""

    def __init__(self, hidden: int = 3) -> None:
        super().__init__()
        self.inner, self.recurrent = nn.Linear(2, hidden), nn.Linear(hidden, hidden, bias=False)
        self.output = nn.Linear(hidden, 3)

    def forward(self, x):
        hidden, states = x.new_zeros(x.size(1), self.recurrent.in_features), []
        for now in x.unbind():
            hidden = torch.tanh(self.inner(now) + self.recurrent(hidden))
            states.append(hidden)
        return Outputs(self.output(hidden), torch.stack(states))


def problem(seed: int = 0, cases: int = 8, steps: int = 4) -> tuple[Net, Objective]:
    torch.manual_seed(seed)
    net = Net().double()
    x, targets = torch.randn(steps, cases, 2, dtype=torch.float64), torch.randint(3, (cases,))
    return net, Objective(
        lambda parameters: torch.func.functional_call(net, parameters, (x,)), targets, softmax_cross_entropy()
    )


def regression() -> tuple[Net, Objective]:
    """The same network, held to three numbers a case by their squared error."""
    net, classified = problem()
    return net, Objective(classified.forward, torch.randn(8, 3, dtype=torch.float64), squared_error())


def parameters_of(net: nn.Module):
    return {name: parameter.detach().clone() for name, parameter in net.named_parameters()}


def linear_problem() -> tuple[nn.Linear, Objective]:
    """Softmax regression on noise, from zero: logits linear in the parameters, so that G is the Hessian."""
    torch.manual_seed(0)
    net = nn.Linear(2, 3).double()
    nn.init.zeros_(net.weight)
    nn.init.zeros_(net.bias)
    x, targets = torch.randn(60, 2, dtype=torch.float64), torch.randint(3, (60,))

    def forward(parameters):
        return Outputs(torch.func.functional_call(net, parameters, (x,)), x.new_zeros(0))

    return net, Objective(forward, targets, softmax_cross_entropy())


def as_matrix(product, size: int):
    """The matrix whose columns are the products with the unit vectors."""
    return torch.stack([product(unit) for unit in torch.eye(size, dtype=torch.float64)], dim=1)


def jacobian(objective: Objective, parameters, field: str):
    """The Jacobian of one of the outputs, its rows and the parameters each in one line."""

    def output(vector):
        return getattr(objective.forward(unflatten(vector, parameters)), field).flatten()

    return torch.autograd.functional.jacobian(output, flatten(parameters))


def explicit_gauss_newton(objective: Objective, parameters):
    """J' H J / W, H a block per case: diag(p) - p p'."""
    j = jacobian(objective, parameters, "predictions")
    p = objective.forward(parameters).predictions.softmax(dim=1)
    h = torch.block_diag(*(row.diag() - row.outer(row) for row in p))
    return j.T @ h @ j / len(p)


def test_product_is_the_explicit_gauss_newton_matrix():
    net, objective = problem()
    parameters = parameters_of(net)
    product = gauss_newton(objective, parameters)
    expected = explicit_gauss_newton(objective, parameters)
    assert_close(as_matrix(lambda v: product(v, 0.0), len(expected)), expected)


def test_the_losses_by_hand():
    logits = tensor([[0.0, math.log(3)], [0, 0]])  # p = (1/4, 3/4) and (1/2, 1/2)
    classes, v = tensor([0, 1]), tensor([[1.0, 2], [3, 5]])
    loss = softmax_cross_entropy()
    assert float(loss.mean(logits, classes)) == pytest.approx((math.log(4) + math.log(2)) / 2)
    # diag(p) - p p' is p1 p2 [[1, -1], [-1, 1]]: 3/16 of 1 - 2, and 1/4 of 3 - 5
    assert_close(loss.hessian(logits)(v), tensor([[-3 / 16, 3 / 16], [-1 / 2, 1 / 2]]))
    smoothed = softmax_cross_entropy(0.2)  # a tenth to each class, the rest to the right one
    assert float(smoothed.mean(logits[:1], classes[:1])) == pytest.approx(0.9 * math.log(4) + 0.1 * math.log(4 / 3))

    y, t = tensor([[1.0, 2], [3, 5]]), tensor([[0.0, 4], [3, 2]])
    assert float(squared_error().mean(y, t)) == ((1 + 4) / 2 + 9 / 2) / 2
    assert torch.equal(squared_error().hessian(y)(v), v)


def test_of_a_squared_error_the_matrix_is_that_of_the_jacobian_alone():
    net, objective = regression()
    parameters = parameters_of(net)
    product, j = gauss_newton(objective, parameters), jacobian(objective, parameters, "predictions")
    assert_close(as_matrix(lambda v: product(v, 0.0), j.size(1)), j.T @ j / 8)  # 8 cases


def test_one_undamped_step_solves_linear_least_squares():
    torch.manual_seed(0)
    x, t = torch.randn(60, 2, dtype=torch.float64), torch.randn(60, 3, dtype=torch.float64)
    net = nn.Linear(2, 3, bias=False).double()

    def forward(parameters):
        return Outputs(torch.func.functional_call(net, parameters, (x,)), x.new_zeros(0))

    optimizer = HessianFree(net.named_parameters(), damping=0.0, max_iterations=2)  # x'x has two eigenvalues
    report = optimizer.step(objective=Objective(forward, t, squared_error()))
    assert_close(net.weight.detach().T, torch.linalg.solve(x.T @ x, x.T @ t))
    assert report.reduction_ratio == pytest.approx(1)  # the model is the loss


def test_structural_damping_is_the_explicit_matrix():
    net, objective = problem()
    parameters = parameters_of(net)
    product = gauss_newton(objective, parameters)
    j = jacobian(objective, parameters, "hidden")
    expected = explicit_gauss_newton(objective, parameters) + 0.3 * j.T @ j / 8  # 8 cases
    assert_close(as_matrix(lambda v: product(v, 0.3), len(expected)), expected)


def test_structural_damping_is_the_curvature_of_the_distance_between_hidden_states():
    net, objective = problem()
    parameters = parameters_of(net)
    origin, before = flatten(parameters), objective.forward(parameters).hidden

    def distance(vector):
        return (objective.forward(unflatten(vector, parameters)).hidden - before).square().sum() / 2 / 8

    product = gauss_newton(objective, parameters)
    structural = as_matrix(lambda v: product(v, 1.0) - product(v, 0.0), len(origin))
    assert_close(structural, torch.autograd.functional.hessian(distance, origin))


def test_where_logits_are_linear_gauss_newton_is_the_hessian_of_the_loss_smoothed_or_not():
    net, objective = linear_problem()
    parameters = parameters_of(net)
    product = gauss_newton(objective, parameters)
    matrix = as_matrix(lambda v: product(v, 0.0), 9)
    for smoothing in (0.0, 0.3):
        smoothed = replace(objective, convex_loss=softmax_cross_entropy(smoothing))
        hessian = torch.autograd.functional.hessian(
            lambda vector, of=smoothed: of.loss(unflatten(vector, parameters)), flatten(parameters)
        )
        assert_close(matrix, hessian)


def test_the_matrix_is_symmetric_and_positive_semi_definite():
    net, objective = problem()
    product = gauss_newton(objective, parameters_of(net))
    matrix = as_matrix(lambda v: product(v, 0.1), sum(p.numel() for p in net.parameters()))
    assert_close(matrix, matrix.T)
    assert torch.linalg.eigvalsh(matrix).min() > -1e-12


def test_conjugate_gradients_solve_n_equations_in_n_iterations():
    # A x = -g with A = [[2, 1], [1, 2]], g = (-4, -5): x = (1, 2); phi = g'x / 2 = -7
    a, g = tensor([[2.0, 1], [1, 2]]).double(), tensor([-4.0, -5]).double()
    iterates, values = conjugate_gradients(lambda v: a @ v, g, torch.zeros_like(g), max_iterations=2, tolerance=0.0)
    assert_close(iterates[-1], tensor([1.0, 2]).double())
    # first along -g by g'g / g'Ag = 41 / 122: phi = -41^2 / 122 / 2
    assert_close(iterates[0], 41 / 122 * -g)
    assert_close(values, [0.0, -(41**2) / 244, -7.0])


def spread(size: int):
    """A diagonal matrix with eigenvalues from 1e-4 to 1, and a gradient of ones."""
    eigenvalues = torch.logspace(-4, 0, size, dtype=torch.float64)
    return eigenvalues, torch.ones(size, dtype=torch.float64)


def test_conjugate_gradients_stay_where_the_gradient_is_too_small_to_square():
    start = torch.zeros(1)
    iterates, _ = conjugate_gradients(lambda v: 1e30 * v, torch.tensor([1e-23]), start, max_iterations=9, tolerance=0.0)
    assert [iterate.tolist() for iterate in iterates] == [[0.0]]


def test_conjugate_gradients_stop_at_the_first_iteration_that_gains_too_little():
    eigenvalues, g = spread(200)
    start = torch.zeros_like(g)
    _, values = conjugate_gradients(lambda v: eigenvalues * v, g, start, max_iterations=300, tolerance=0.0)
    _, stopped = conjugate_gradients(lambda v: eigenvalues * v, g, start, max_iterations=300, tolerance=5e-4)
    last = len(stopped) - 1
    assert values[: last + 1] == stopped
    assert 20 < last < 200  # the case is one in which the rule, not the limit, decides

    def gain(i):  # per iteration, as a share of all gained so far
        k = max(10, i // 10)
        return (values[i - k] - values[i]) / -values[i] / k

    assert gain(last) < 5e-4
    assert all(gain(i) >= 5e-4 for i in range(11, last))


@pytest.mark.parametrize(
    ("values", "stalled"),
    [
        ([0.0] + 10 * [-1.0], False),  # i = 10 is not above k = 10
        ([0.0] + 11 * [-1.0], True),  # nothing gained in the last 10
        ([0.0, -1.0] + 9 * [-1.0] + [-1.004], True),  # 0.004 / 1.004 < 10 * 5e-4
        ([0.0, -1.0] + 9 * [-1.0] + [-1.006], False),  # 0.006 / 1.006 > 10 * 5e-4
        (12 * [1.0], False),  # above zero: worse than no step at all
        ([0.0] + 180 * [-1.0] + 20 * [-1.006], True),  # i = 200, k = 20: all that was gained lies 20 back
        ([0.0] + 180 * [-1.0] + 19 * [-1.0] + [-1.006], True),  # 0.006 / 1.006 < 20 * 5e-4, though not < 10 * 5e-4
    ],
)
def test_the_rule_to_stop(values, stalled):
    assert has_stalled(values, 5e-4) == stalled


def test_iterates_are_kept_at_powers_of_1_3_and_the_last():
    eigenvalues, g = spread(50)
    start = torch.zeros_like(g)

    def after(iterations):
        return conjugate_gradients(lambda v: eigenvalues * v, g, start, max_iterations=iterations, tolerance=0.0)[0]

    for kept, iterations in zip(after(10), (1, 2, 3, 4, 5, 7, 9, 10), strict=True):
        assert_close(kept, after(iterations)[-1])


def test_conjugate_gradients_at_the_minimum_stay_there():
    x = tensor([1.0, 2]).double()
    iterates, values = conjugate_gradients(lambda v: v, -x, x, max_iterations=9, tolerance=5e-4)
    assert_close(iterates, [x])
    assert_close(values, [-2.5])


def test_the_iterate_is_chosen_going_back_while_the_loss_falls():
    losses = [1.0, 5.0, 2.0, 3.0, 4.0]  # the best lies behind a hill, which is not climbed
    steps = [tensor([number]) for number in range(5)]
    assert best_iterate(steps, lambda step: losses[step]) == (steps[2], 2.0)
    assert best_iterate(steps[:1], lambda step: losses[step]) == (steps[0], 1.0)
    assert best_iterate(steps, lambda step: math.inf if step else 1.0) == (steps[0], 1.0)


def test_the_line_search_takes_the_first_length_that_keeps_its_promise():
    step = tensor([2.0])
    # f(w) = w^2 at w = -1, slope -2 * 2: f(1) = 1 = f(-1) promises nothing; 0.8 leads to w = 0.6
    assert line_search(lambda d: float((d - 1) ** 2), step, 1.0, -4.0) == pytest.approx((0.8, 0.36))
    # 0.966 is below 1, but not by 0.01 * 4; at 0.8 of the step it is enough, as 0.01 * 0.8 * 4 is asked there
    assert line_search(lambda d: 0.966, step, 1.0, -4.0) == (0.8, 0.966)
    # downhill in no length; and a slope upwards is no leave to rise
    assert line_search(lambda d: 1.001, step, 1.0, -4.0) == (0.0, 1.0)
    assert line_search(lambda d: 1.001, step, 1.0, 4.0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(-1.0, 9.0), (-math.inf, 9.0), (0.24, 9.0), (0.25, 6.0), (0.75, 6.0), (0.76, 4.0), (2.0, 4.0)],
)
def test_damping_follows_the_reduction_ratio(ratio, expected):
    assert next_damping(6.0, ratio) == pytest.approx(expected)


def test_one_undamped_step_is_the_closed_form_gauss_newton_step():
    net, objective = linear_problem()
    parameters = parameters_of(net)
    gradient = flatten(torch.func.grad(objective.loss)(parameters))
    matrix = explicit_gauss_newton(objective, parameters)
    newton = -torch.linalg.pinv(matrix, rtol=1e-10) @ gradient  # the same number on all logits changes nothing
    optimizer = HessianFree(net.named_parameters(), damping=0.0, max_iterations=6)  # the rank: 2 free logits of 3 each
    report = optimizer.step(objective=objective)
    assert report.length == 1
    assert_close(flatten(parameters_of(net)), flatten(parameters) + newton)
    foretold = gradient @ newton / 2
    assert report.reduction_ratio == pytest.approx(float((report.new_loss - report.loss) / foretold))


def test_one_damped_step_solves_the_damped_equations():
    net, objective = problem()
    parameters = parameters_of(net)
    gradient = flatten(torch.func.grad(objective.loss)(parameters))
    j = jacobian(objective, parameters, "hidden")
    damped = explicit_gauss_newton(objective, parameters) + DAMPING * (0.3 * j.T @ j / 8 + torch.eye(len(gradient)))
    optimizer = HessianFree(net.named_parameters(), damping=DAMPING, structural_damping=0.3, tolerance=0.0)
    report = optimizer.step(objective=objective)
    assert report.length == 1
    assert_close(flatten(parameters_of(net)), flatten(parameters) - torch.linalg.solve(damped, gradient))


def test_the_loss_never_rises_and_the_report_tells_the_truth():
    net, objective = problem(cases=16)
    optimizer = HessianFree(net.named_parameters(), damping=1e-3, max_iterations=30)
    losses = [float(objective.loss(parameters_of(net)))]
    for _ in range(12):
        report = optimizer.step(objective=objective)
        losses.append(float(objective.loss(parameters_of(net))))
        assert (report.loss, report.new_loss) == pytest.approx(tuple(losses[-2:]))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 2


def test_a_step_that_only_raises_the_loss_is_refused_and_damping_grows():
    net, objective = problem()
    here = objective.forward(parameters_of(net)).predictions

    def cliff(parameters):  # the slope says down, but every step ends on a wall
        outputs = objective.forward(parameters)
        wall = F.one_hot(objective.targets, 3) * (outputs.predictions.detach() != here).any()
        return outputs._replace(predictions=outputs.predictions - 100 * wall)

    before = parameters_of(net)["output.bias"]
    optimizer = HessianFree(net.named_parameters(), damping=1.0)
    report = optimizer.step(objective=replace(objective, forward=cliff))
    assert (report.length, report.new_loss) == (0.0, report.loss)
    assert torch.equal(net.output.bias, before)
    assert optimizer.param_groups[0]["damping"] == 1.5
    assert not any(state["solution"].any() for state in optimizer.state.values())  # no place to start from


def test_a_step_to_where_the_loss_is_not_finite_is_refused():
    net, objective = problem()
    here = objective.forward(parameters_of(net)).predictions

    def abyss(parameters):
        outputs = objective.forward(parameters)
        moved = (outputs.predictions.detach() != here).any()
        return outputs._replace(predictions=outputs.predictions * torch.where(moved, math.nan, 1.0))

    report = HessianFree(net.named_parameters()).step(objective=replace(objective, forward=abyss))
    assert (report.length, report.new_loss, report.reduction_ratio) == (0.0, report.loss, -math.inf)
    assert torch.equal(objective.forward(parameters_of(net)).predictions, here)


def test_resumed_is_uninterrupted(tmp_path):
    options = {"damping": 0.1, "structural_damping": 0.1, "max_iterations": 5}
    net, objective = problem()
    optimizer = HessianFree(net.named_parameters(), **options)
    for _ in range(3):
        optimizer.step(objective=objective)
    torch.save([net.state_dict(), optimizer.state_dict()], tmp_path / "saved")
    uninterrupted = [optimizer.step(objective=objective) for _ in range(2)]

    weights, state = torch.load(tmp_path / "saved", weights_only=True)
    again, _ = problem()
    again.load_state_dict(weights)
    fresh = HessianFree(again.named_parameters(), **options)
    fresh.load_state_dict(state)
    assert [fresh.step(objective=objective) for _ in range(2)] == uninterrupted
    assert torch.equal(flatten(parameters_of(again)), flatten(parameters_of(net)))


def test_conjugate_gradients_start_at_the_decayed_last_solution():
    net, objective = problem()
    optimizer = HessianFree(net.named_parameters(), damping=DAMPING, start_decay=0.5)
    origin = flatten(parameters_of(net))
    optimizer.step(objective=objective)
    step = flatten(parameters_of(net)) - origin  # of length 1 and the last iterate, so the solution itself
    start = 0.5 * step
    parameters = parameters_of(net)
    product, gradient = gauss_newton(objective, parameters), flatten(torch.func.grad(objective.loss)(parameters))
    damping = optimizer.param_groups[0]["damping"]
    optimizer.max_iterations = 1
    optimizer.step(objective=objective)
    residual = product(start, 0.0) + damping * start + gradient
    length = residual @ residual / (residual @ (product(residual, 0.0) + damping * residual))
    assert_close(flatten(parameters_of(net)), flatten(parameters) + start - length * residual)


def test_a_changed_option_is_obeyed_after_loading():
    net, _ = problem()
    saved = HessianFree(net.named_parameters(), max_iterations=5, damping=3.0).state_dict()
    resumed = HessianFree(net.named_parameters(), max_iterations=7)
    resumed.load_state_dict(saved)
    assert (resumed.max_iterations, resumed.param_groups[0]["damping"]) == (7, 3.0)


def test_the_curvature_may_come_from_part_of_the_batch():
    net, objective = problem(seed=0)
    _, part = problem(seed=1, cases=4)
    parameters = parameters_of(net)
    gradient = flatten(torch.func.grad(objective.loss)(parameters))
    damped = explicit_gauss_newton(part, parameters) + DAMPING * torch.eye(len(gradient))
    HessianFree(net.named_parameters(), damping=DAMPING, tolerance=0.0).step(objective=objective, curvature=part)
    assert_close(flatten(parameters_of(net)), flatten(parameters) - torch.linalg.solve(damped, gradient))


def test_frozen_parameters_stay():
    net, objective = problem()
    net.recurrent.requires_grad_(False)
    before = net.recurrent.weight.clone()
    optimizer = HessianFree(net.named_parameters())
    report = optimizer.step(objective=objective)
    assert torch.equal(net.recurrent.weight, before)
    assert report.new_loss < report.loss


def test_a_closure_is_called_first_with_gradients_on():
    net, objective = problem()
    seen = []
    HessianFree(net.named_parameters()).step(lambda: seen.append(torch.is_grad_enabled()), objective=objective)
    assert seen == [True]


def test_a_loss_that_is_not_finite_is_an_error():
    net, objective = problem()
    net.output.bias.data[0] = math.nan
    with pytest.raises(FloatingPointError, match="before the step the loss is nan"):
        HessianFree(net.named_parameters()).step(objective=objective)


def test_a_gradient_that_is_not_finite_is_an_error():
    net, objective = problem()

    def forward(parameters):  # the root of 0 has the slope inf, and inf * 0 is nan
        outputs = objective.forward(parameters)
        return outputs._replace(predictions=outputs.predictions + (0 * parameters["output.bias"]).sqrt())

    with pytest.raises(FloatingPointError, match=r"the loss is \d.* and its gradient of norm nan"):
        HessianFree(net.named_parameters()).step(objective=replace(objective, forward=forward))


def test_at_the_minimum_nothing_moves():
    net = nn.Linear(1, 2).double()
    nn.init.zeros_(net.weight)
    nn.init.zeros_(net.bias)
    x = torch.ones(2, 1, dtype=torch.float64)  # two equal cases, one of each class

    def forward(parameters):
        return Outputs(torch.func.functional_call(net, parameters, (x,)), x.new_zeros(0))

    objective = Objective(forward, tensor([0, 1]), softmax_cross_entropy())
    report = HessianFree(net.named_parameters()).step(objective=objective)
    assert (report.loss, report.new_loss, report.iterations) == (pytest.approx(math.log(2)), report.loss, 0)
    assert not flatten(parameters_of(net)).any()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"damping": -1.0}, r"damping must be at least 0, not -1\.0"),
        ({"structural_damping": -1.0}, r"structural_damping must be at least 0, not -1\.0"),
        ({"tolerance": math.nan}, "tolerance must be at least 0, not nan"),
        ({"max_iterations": 0}, "max_iterations must be at least 1, not 0"),
        ({"start_decay": 1.5}, r"start_decay lies in \[0, 1\], not 1\.5"),
    ],
)
def test_options_out_of_range_are_refused(option, message):
    with pytest.raises(ValueError, match=message):
        HessianFree(nn.Linear(1, 1).named_parameters(), **option)
