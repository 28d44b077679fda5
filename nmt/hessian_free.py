"""Hessian-free optimisation: approximate Newton steps on a Gauss-Newton model, solved by conjugate gradients.

At the parameters w, the loss f of a step d is modelled by q(d) = f(w) + g'd + d'Gd / 2, with g the gradient and
G = J'HJ the generalised Gauss-Newton matrix (Schraudolph 2002): J the Jacobian of the predictions, H the Hessian of the
loss in the predictions. What is minimised is the damped model, with G + lambda (mu S + I) in the place of G. No matrix
is ever formed: G v costs a few forward passes, as J v is taken forwards and J' backwards.

Sources, named below: [M10] Martens, "Deep learning via Hessian-free optimization", ICML 2010; [MS11] Martens &
Sutskever, "Learning recurrent neural networks with Hessian-free optimization", ICML 2011. There is no preconditioner:
that of [M10] section 4.7 needs the squared gradient of every single case.

Shapes: **P** all parameters as one vector, **W** targets, **V** predictions for each (classes, in translation), **M**
anything.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Parameters = dict[str, Tensor]


class Outputs(NamedTuple):
    """What the network computes from its parameters, as far as the optimiser must know."""

    predictions: Tensor  # (W, V) one row per target
    hidden: Tensor  # (M, ...) the hidden states that structural damping holds, in any order; empty for none


class ConvexLoss(NamedTuple):
    """A loss that is convex in the predictions, so that G is positive semi-definite, and its curvature there."""

    mean: Callable[[Tensor, Tensor], Tensor]  # predictions (W, V), targets -> the mean over the targets, a scalar
    hessian: Callable[[Tensor], Callable[[Tensor], Tensor]]  # predictions (W, V) -> the product (W, V) -> (W, V) with H


def softmax_cross_entropy(label_smoothing: float = 0.0) -> ConvexLoss:
    """Softmax cross-entropy of logits (W, V) and the right classes (W,): H = diag(p) - p p', p the softmax of the row.

    H is the same whatever share of the target distribution `label_smoothing` spreads over all classes.
    """

    def hessian(logits: Tensor) -> Callable[[Tensor], Tensor]:
        p = logits.softmax(dim=1)  # (W, V)
        return lambda v: p * v - p * (p * v).sum(dim=1, keepdim=True)

    return ConvexLoss(partial(F.cross_entropy, label_smoothing=label_smoothing), hessian)


def squared_error() -> ConvexLoss:
    """|y - t|^2 / 2 of predictions y and targets t, both (W, V): H is the identity."""
    return ConvexLoss(lambda y, t: (y - t).square().sum() / 2 / len(y), lambda _: lambda v: v)


@dataclass(frozen=True)
class Objective:
    """The mean loss of a batch, as a function of the parameters.

    Attributes:
        forward: A pure function: the same parameters give the same outputs, so dropout is off or its masks are fixed.
            It must be differentiable forwards (torch.func.jvp) as well as backwards, which fused LSTM kernels are not.
        targets: What the loss compares the predictions with, padding left out: classes (W,), or values (W, V).
        convex_loss: Of the predictions.
    """

    forward: Callable[[Parameters], Outputs]
    targets: Tensor
    convex_loss: ConvexLoss

    def loss(self, parameters: Parameters) -> Tensor:
        """The mean over the targets, a scalar."""
        return self.convex_loss.mean(self.forward(parameters).predictions, self.targets)


class Report(NamedTuple):
    """What one update did."""

    loss: float  # before
    new_loss: float  # after, never above
    damping: float  # lambda under which the step was computed
    reduction_ratio: float  # rho: the fall of the loss over the fall that the model foretold, before the line search
    iterations: int  # of conjugate gradients
    length: float  # that the line search left of the step; 0 if every length would have raised the loss


class HessianFree(torch.optim.Optimizer):
    """The Hessian-free optimiser; one call of `step` is one update on one (large) batch.

    Damping and the last solution, where the next conjugate gradients start, are its state: saved and loaded they make a
    resumed run go on as if it had never stopped. The other options are those it was made with, whatever is loaded.

    Args:
        named_parameters: As `module.named_parameters()` gives them; an objective gets them by these names. Frozen ones
            are left out.
        damping: lambda at the start ([M10] section 4.1).
        structural_damping: mu, structural damping relative to lambda ([MS11] section 3.1); 0 for none.
        max_iterations: Of conjugate gradients, per update ([M10] took 250, [MS11] up to 300).
        tolerance: Their relative progress per iteration below which they stop ([M10] section 4.4).
        start_decay: Share of the last solution at which they start ([M10] section 4.5 takes all of it), unless its step
            was refused.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Tensor]],
        *,
        damping: float = 1.0,
        structural_damping: float = 0.0,
        max_iterations: int = 250,
        tolerance: float = 5e-4,
        start_decay: float = 0.95,
    ) -> None:
        for name, value in (("damping", damping), ("structural_damping", structural_damping), ("tolerance", tolerance)):
            if not value >= 0:
                raise ValueError(f"{name} must be at least 0, not {value}")
        if max_iterations < 1:
            raise ValueError(f"max_iterations must be at least 1, not {max_iterations}")
        if not 0 <= start_decay <= 1:
            raise ValueError(f"start_decay lies in [0, 1], not {start_decay}")
        trained = {name: parameter for name, parameter in named_parameters if parameter.requires_grad}
        super().__init__(trained.values(), {"damping": float(damping)})
        self.names = list(trained)
        self.structural_damping, self.max_iterations = structural_damping, max_iterations
        self.tolerance, self.start_decay = tolerance, start_decay

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], Any] | None = None, *, objective: Objective, curvature: Objective | None = None
    ) -> Report:
        """Lower the objective by one step, or leave the parameters as they are if no length of it does.

        Args:
            closure: Called first, its value not used: Lightning's must run, but the gradient is the objective's own.
            objective: What is lowered, over as large a batch as can be had ([M10] section 4.3).
            curvature: The same over part of the batch, from which G and S are taken at less cost; else `objective`.

        Raises:
            FloatingPointError: The loss or its gradient is not finite to begin with.
        """
        if closure is not None:
            with torch.enable_grad():
                closure()
        parameters = self._parameters()
        origin, damping = flatten(parameters), float(self.param_groups[0]["damping"])  # (P,)
        gradients, value = torch.func.grad_and_value(objective.loss)(parameters)
        gradient, loss = flatten(gradients), float(value)
        norm = float(gradient.norm())
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise FloatingPointError(f"before the step the loss is {loss} and its gradient of norm {norm}: not finite")

        def loss_after(step: Tensor) -> float:
            after = float(objective.loss(unflatten(origin + step, parameters)))
            return after if math.isfinite(after) else math.inf  # a step too far: worse than any other

        product = gauss_newton(curvature or objective, parameters)
        iterates, values = conjugate_gradients(
            lambda v: product(v, damping * self.structural_damping) + damping * v,
            gradient,
            self.start_decay * self._last_solution(),
            max_iterations=self.max_iterations,
            tolerance=self.tolerance,
        )
        step, new_loss = best_iterate(iterates, loss_after)
        slope = float(gradient @ step)
        foretold = slope + float(step @ product(step, 0.0)) / 2
        ratio = (new_loss - loss) / foretold if foretold < 0 else 0.0
        length, new_loss = line_search(loss_after, step, loss, slope)
        solution = iterates[-1] if length else torch.zeros_like(origin)  # a refused one is no place to start from
        self._keep(origin + length * step if length else origin, solution, next_damping(damping, ratio))
        return Report(loss, new_loss, damping, ratio, len(values) - 1, length)

    def _parameters(self) -> Parameters:
        [group] = self.param_groups
        return {name: value.detach() for name, value in zip(self.names, group["params"], strict=True)}

    def _last_solution(self) -> Tensor:
        """Where conjugate gradients ended last time (P,); zero at first."""
        trained = self.param_groups[0]["params"]
        return torch.cat([self.state[value].get("solution", torch.zeros_like(value)).reshape(-1) for value in trained])

    def _keep(self, point: Tensor, solution: Tensor, damping: float) -> None:
        """Write the parameters (P,) and the state."""
        like = self._parameters()
        values, solutions = unflatten(point, like), unflatten(solution, like)
        for name, parameter in zip(self.names, self.param_groups[0]["params"], strict=True):
            parameter.copy_(values[name])
            self.state[parameter]["solution"] = solutions[name].clone()
        self.param_groups[0]["damping"] = damping


def flatten(parameters: Parameters) -> Tensor:
    """All of them as one vector (P,)."""
    return torch.cat([parameter.reshape(-1) for parameter in parameters.values()])


def unflatten(vector: Tensor, like: Parameters) -> Parameters:
    """The vector (P,) cut into parts with the names and shapes of `like`."""
    parts = torch.split(vector, [parameter.numel() for parameter in like.values()])
    return {name: part.view_as(value) for (name, value), part in zip(like.items(), parts, strict=True)}


def gauss_newton(objective: Objective, parameters: Parameters) -> Callable[[Tensor, float], Tensor]:
    """The function (v, weight) -> (G + weight * S) v, all in vectors (P,), at these parameters.

    G = J' H J / W with H the Hessian of each target's loss ([M10] section 4.2, after Schraudolph 2002).
    S = Jh' Jh / W, Jh the Jacobian of the hidden states: structural damping ([MS11] section 3.1) for the distance
    |h - h'|^2 / 2 between the hidden states before and after a step, summed over all of them and divided, like the
    loss, by the number of targets. It keeps a step from changing by much what a recurrent network remembers.
    """
    outputs, backwards = torch.func.vjp(objective.forward, parameters)[:2]
    hessian, targets = objective.convex_loss.hessian(outputs.predictions), outputs.predictions.size(0)

    def product(vector: Tensor, weight: float) -> Tensor:
        tangent = torch.func.jvp(objective.forward, (parameters,), (unflatten(vector, parameters),))[1]
        bent = hessian(tangent.predictions) / targets  # (W, V)
        [result] = backwards(Outputs(bent, weight / targets * tangent.hidden))
        return flatten(result)

    return product


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], gradient: Tensor, start: Tensor, *, max_iterations: int, tolerance: float
) -> tuple[list[Tensor], list[float]]:
    """Minimise phi(x) = x'Ax / 2 + g'x for a positive semi-definite A, given as v -> Av.

    Returns:
        The iterates x (P,) after iterations 1, 2, 3, 4, 5, 7, 9 ... (the powers of 1.3 rounded up, [M10] section 4.6)
        and after the last; and phi at the start and after each iteration.
    """
    x, residual = start, product(start) + gradient
    direction, square = -residual, float(residual @ residual)
    iterates, values, mark = [], [float(x @ (residual + gradient)) / 2], 1.0
    for iteration in range(1, max_iterations + 1):
        curved = product(direction)
        bend = float(direction @ curved)
        if not (square > 0 and bend > 0):  # the residual is zero, or too small to square: the minimum
            break
        x = x + square / bend * direction
        residual = residual + square / bend * curved
        values.append(float(x @ (residual + gradient)) / 2)
        if iteration >= mark:
            iterates.append(x)
            while mark <= iteration:
                mark *= 1.3
        if has_stalled(values, tolerance):
            break
        before, square = square, float(residual @ residual)
        direction = square / before * direction - residual
    if not iterates or iterates[-1] is not x:
        iterates.append(x)
    return iterates, values


def has_stalled(values: list[float], tolerance: float) -> bool:
    """Whether phi, given for iterations 0 to i, has gained too little in the last k = max(10, i / 10) of them.

    [M10] section 4.4: i > k, phi_i < 0 and (phi_i - phi_(i-k)) / phi_i < k * tolerance.
    """
    i = len(values) - 1
    k = max(10, i // 10)
    return i > k and values[i] < 0 and (values[i] - values[i - k]) / values[i] < k * tolerance


def best_iterate(iterates: list[Tensor], loss_after: Callable[[Tensor], float]) -> tuple[Tensor, float]:
    """Back from the last for as long as the loss does not rise ([M10] section 4.6); a step (P,) and the loss after it.

    The model is worth less the further it is minimised; an early iterate may do better on the loss itself.
    """
    best, best_loss = iterates[-1], loss_after(iterates[-1])
    for step in reversed(iterates[:-1]):
        loss = loss_after(step)
        if loss > best_loss:
            break
        best, best_loss = step, loss
    return best, best_loss


def line_search(
    loss_after: Callable[[Tensor], float], step: Tensor, loss: float, slope: float, shrink: float = 0.8
) -> tuple[float, float]:
    """The first length of 1, 0.8, 0.64 ... 0.001 that lowers the loss by a share of what the slope g'd promises.

    Armijo's rule with 1 / 100. The length, and the loss there; (0, loss) where no length will do.
    """
    length = 1.0
    while length > 1e-3:
        new_loss = loss_after(length * step)
        if new_loss <= loss + 0.01 * length * min(slope, 0.0):
            return length, new_loss
        length *= shrink
    return 0.0, loss


def next_damping(damping: float, ratio: float) -> float:
    """The Levenberg-Marquardt rule: more where the model promised too much, less where it can be trusted.

    [M10] section 4.1: 3/2 lambda if rho < 1/4, 2/3 lambda if rho > 3/4.
    """
    if ratio < 1 / 4:
        return damping * 3 / 2
    return damping * 2 / 3 if ratio > 3 / 4 else damping
