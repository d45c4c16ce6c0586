"""The checks of grade.py: each calls a submission's function and raises Wrong, with the mistake whose formula fits."""

import contextlib
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import oracles
import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLES = 1000  # of Monte Carlo estimates; few, as some submissions loop over the examples
RIGHT = ""  # the name of the right one among the results of formulas
STANDARD_ERRORS = 6  # a correct one is further off once in 10^8, one of the hundred compared less than once in 10^6


class Wrong(Exception):
    """A check that failed: what was seen, mistakes that explain it, the share of points left, whether to name one."""

    def __init__(self, seen: str, mistakes: Iterable[str] = (), share: float = 0.0, named: bool = True):
        self.seen, self.mistakes, self.share, self.named = seen, list(mistakes), share, named
        super().__init__(self.note())

    def note(self, mistake: str = "") -> str:
        """One line, with this mistake, else the first that may be named."""
        mistake = mistake or (self.mistakes[0] if self.mistakes and self.named else "")
        return ": ".join(filter(None, [mistake, self.seen]))


def draw(*shape: int, seed: int = 0) -> Tensor:
    """The same uniform numbers in [-1, 1) every time, whatever other threads draw."""
    return torch.empty(shape).uniform_(-1, 1, generator=torch.Generator().manual_seed(seed))


def close(got: Tensor, expected: Tensor, tolerance: Tensor | float = 0.0) -> bool:
    """Within float32's rounding, generously, and a tolerance."""
    same_shape = got.shape == expected.shape
    return same_shape and bool(((got - expected).abs() <= 1e-4 + 1e-3 * expected.abs() + tolerance).all())


def explains(value: Tensor, got: Tensor, tolerance: Tensor | float = 0.0) -> bool:
    """Whether a formula gives what was got, of one number whatever its axes, of a square (B, B) the symmetric part."""
    if got.numel() == value.numel() == 1:
        got, value = got.reshape(()), value.reshape(())
    elif got.dim() == 2 and got.shape[0] == got.shape[1]:
        got = (got + got.T) / 2
    return close(got, value.detach().double(), tolerance)


def numbers(got: Tensor, expected: Tensor) -> str:
    """Expected and obtained shape, or the entries that differ most."""
    if got.shape != expected.shape:
        dropped = "squeeze() drops the batch axis of one example: " if (got.dim(), expected.shape) == (0, (1,)) else ""
        return f"{dropped}expected shape {tuple(expected.shape)}, got {tuple(got.shape)}"
    at = (got - expected).abs().nan_to_num(math.inf).argmax()
    return f"expected {expected.flatten()[at].item():.5g}, got {got.flatten()[at].item():.5g}"


def constant(answers: list) -> str:
    """That all answers are one number, in words."""
    are_tensors = all(isinstance(answer, Tensor) for answer in answers)
    entries = torch.cat([torch.empty(0), *(answer.flatten() for answer in answers)]) if are_tensors else ()
    return "the same number for every input" if len(entries) > 1 == len(entries.unique()) else ""


def tensor(value: Tensor | str | None, shape: tuple[int, ...] | None = None) -> Tensor:
    """The value in float64; Wrong unless it is a tensor, of this shape; (B, 1) for (B,) leaves half of the points."""
    if not isinstance(value, Tensor):
        kind = "list or tuple" if isinstance(value, list) else value
        raise Wrong("returns nothing" if value is None else f"returns no tensor but a {kind}")
    if value.is_complex():
        raise Wrong("returns complex numbers")
    if shape is not None and value.shape != shape:
        raise Wrong(f"expected shape {shape}, got {tuple(value.shape)}", share=0.5 if value.shape == (*shape, 1) else 0)
    return value.double()


def compare(value: Tensor | None, results: dict, tolerance: Tensor | float = 0.0) -> None:
    """Raise Wrong unless the value is the right one, with the mistakes of which it is the result."""
    got, expected = tensor(value), results[RIGHT].detach().double()
    if expected.dim() == 0 and got.shape == (1,):  # as the starter's comments have it
        got = got[0]
    if close(got, expected, tolerance):
        return
    mistakes = [name for name, value in results.items() if name != RIGHT and explains(value, got, tolerance)]
    is_column = got.shape == (*expected.shape, 1) and close(got.squeeze(-1), expected, tolerance)
    named = expected.shape != (1,) if got.numel() < 2 else not close(got.amax(), got.amin(), tolerance)
    raise Wrong(numbers(got, expected), mistakes, share=0.5 if is_column else 0.0, named=named)


def compare_gradients(got: list, results: dict, leaves: dict[str, Tensor], weights: Tensor) -> None:
    """Raise Wrong unless `got`, of several copies of a batch their mean, are the right result's gradients."""
    missing = [f"no gradient reaches {name}" for name, gradient in zip(leaves, got, strict=True) if gradient is None]

    def difference(value: Tensor) -> str:
        weighted = value.flatten() * weights.flatten() if value.numel() == weights.numel() else value  # as the child
        exact = torch.autograd.grad(weighted.sum(), list(leaves.values()), retain_graph=True, materialize_grads=True)
        for name, gradient, expected in zip(leaves, got, exact, strict=True):
            gradient = torch.zeros_like(expected) if gradient is None else gradient
            copies = gradient.double().reshape(-1, *expected.shape)
            error = copies.std(0, correction=0) / math.sqrt(len(copies))
            if not close(copies.mean(0), expected, STANDARD_ERRORS * error):
                return f"gradient of {name}: {numbers(copies.mean(0), expected)}"
        return ""

    wrong = missing[0] if missing else difference(results[RIGHT])
    if wrong:
        learning = [name for name, value in results.items() if value.requires_grad]
        raise Wrong(wrong, [name for name in learning if not difference(results[name])])


class Formula(NamedTuple):
    """A function that an oracle computes as well."""

    names: list[str]  # of its inputs
    results: Callable  # the right one, named RIGHT, and those of mistaken formulas by the mistake's name
    change: Callable = lambda *inputs: inputs  # of uniform numbers to the inputs
    request: dict | None = None  # what the child needs beside the inputs

    def inputs(self, *size: int) -> list[Tensor]:
        return list(self.change(*(draw(*size, seed=seed) for seed in range(len(self.names)))))

    def leaves(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        return {name: x.double().requires_grad_() for name, x in zip(self.names, inputs, strict=True)}

    def ask(self, call: Callable, inputs: list[Tensor], **request) -> dict:
        """Call the submission's function, with a critic for its weights w."""
        given = [{"w": x} if name == "w" else x for name, x in zip(self.names, inputs, strict=True)]
        return call(given, **(self.request or {}), **request)


def check_values(call: Callable, formula: Formula, sizes: list[tuple]) -> None:
    for size in sizes:
        inputs = formula.inputs(*size)
        compare(formula.ask(call, inputs)["value"], formula.results(*inputs))


def check_gradient(call: Callable, formula: Formula, size: tuple, names: list[str]) -> None:
    inputs = formula.inputs(*size)
    leaves = formula.leaves(inputs)
    results = formula.results(*leaves.values())
    weights = 1.25 + 0.75 * draw(*results[RIGHT].shape, seed=9)
    positions = [formula.names.index(name) for name in names if name != "w"]
    reply = formula.ask(call, inputs, grad=positions, weights=weights)
    value = tensor(reply["value"])
    results = {name: result for name, result in results.items() if name == RIGHT or explains(result, value)}
    compare_gradients(reply["gradients"][: len(names)], results, {name: leaves[name] for name in names}, weights)


def bernoulli(mu: Tensor, target: Tensor) -> dict[str, Tensor]:
    return {
        RIGHT: oracles.log_bernoulli(mu, target),
        "(1 - target) log(1 - mu) is missing": target * mu.log(),
        "target log(mu) is missing": (1 - target) * (1 - mu).log(),
        "target and 1 - target are swapped": oracles.log_bernoulli(mu, 1 - target),
        "mu is taken for a logit": oracles.log_bernoulli(mu.sigmoid(), target),
    }


def normal(mu: Tensor, logvar: Tensor, z: Tensor) -> dict[str, Tensor]:
    right = oracles.log_normal(mu, logvar, z)
    squares = (z - mu) ** 2 / logvar.exp()
    return {
        RIGHT: right,
        "the variance is taken for the standard deviation": oracles.log_normal(mu, 2 * logvar, z),
        "the standard deviation is taken for the variance": oracles.log_normal(mu, logvar / 2, z),
        "log(2 pi) is missing": right + math.log(2 * math.pi) / 2,
        "logvar, the log determinant, is missing": right + logvar / 2,
        "logvar is not halved": right - logvar / 2,
        "the squares are not halved": right - squares / 2,
        "the squares are not divided by the variance": right + squares / 2 - (z - mu) ** 2 / 2,
        "the squares are divided by the standard deviation": right + squares / 2 - squares * oracles.std(logvar) / 2,
        "the squares are divided by the squared variance": right + squares / 2 - squares / logvar.exp() / 2,
        "the squares are multiplied by the variance": right + squares / 2 - (z - mu) ** 2 * logvar.exp() / 2,
        "sign of the squares": right + squares,
    }


def kl(mu_q: Tensor, logvar_q: Tensor, mu_p: Tensor, logvar_p: Tensor) -> dict[str, Tensor]:
    right = oracles.kl(mu_q, logvar_q, mu_p, logvar_p)
    swapped = oracles.kl(mu_p, logvar_p, mu_q, logvar_q)
    squares = (logvar_q.exp() + (mu_q - mu_p) ** 2) / logvar_p.exp()
    halved = oracles.kl(mu_q, logvar_q / 2, mu_p, logvar_p / 2)

    def drawn(mean: float, square: Tensor | float) -> Tensor:
        """E[log q - log p] at z = mu_q + sigma_q u, for noise u with this mean and mean square in place of 0 and 1."""
        distance = (mu_q - mu_p) ** 2 + 2 * (mu_q - mu_p) * oracles.std(logvar_q) * mean + logvar_q.exp() * square
        return (logvar_p - logvar_q - square + distance / logvar_p.exp()) / 2

    return {
        RIGHT: right,
        "q and p are swapped": swapped,
        "the variance is taken for the standard deviation": oracles.kl(mu_q, 2 * logvar_q, mu_p, 2 * logvar_p),
        "the standard deviation is taken for the variance": halved,
        "the factor 1/2 is missing": 2 * right,
        "-1 for each dimension is missing": right + 0.5,
        "the log determinants are missing": right - (logvar_p - logvar_q) / 2,
        "the sign of the log determinants": right - (logvar_p - logvar_q),
        "the means are left out": right - (mu_q - mu_p) ** 2 / logvar_p.exp() / 2,
        "p is taken for N(0, I)": oracles.kl(mu_q, logvar_q, 0 * mu_p, 0 * logvar_p),
        "logvar_p, the log determinant of p, is missing": right - logvar_p / 2,
        "the squares of log p are not divided by the variance": right + squares * (logvar_p.exp() - 1) / 2,
        "the squares of log p are divided by the standard deviation": right + squares * (oracles.std(logvar_p) - 1) / 2,
        "logvar_q, the log determinant of q, is missing": right + logvar_q / 2,
        "the squares of log q are not divided by the variance": right - (logvar_q.exp() - 1) / 2,
        "the squares of log q are divided by the standard deviation": right - (oracles.std(logvar_q) - 1) / 2,
        "the standard deviation is taken for the variance in the ratio": halved + (logvar_p - logvar_q) / 4,
        "z is drawn from p": -swapped,
        "the noise of z is scaled by the variance": drawn(0, logvar_q.exp()),
        "z has no noise": drawn(0, 0),
        "uniform noise in place of normal": drawn(1 / 2, 1 / 3),
    }


def for_batch(right: Tensor) -> dict[str, Tensor]:
    return {
        RIGHT: right,
        "the sign": -right,
        "one number for the whole batch, its sum": right.sum(),
        "one number for the whole batch, its mean": right.mean(),
        "(B, 1) and (B,) are added, which gives (B, B)": (right[:, None] + right) / 2,  # its symmetric part
    }


def log_mean_exp(y: Tensor) -> dict[str, Tensor]:
    right = oracles.log_mean_exp(y)
    return for_batch(right) | {
        "log K is missing, the sum in place of the mean": y.logsumexp(1),
        "log K is added, not subtracted": y.logsumexp(1) + math.log(y.shape[1]),
        "divided by K outside the logarithm": y.logsumexp(1) / y.shape[1],
        "over the batch, not the samples": oracles.log_mean_exp(y.T),
        "the maximum is not added again": right - y.amax(1),
        "one number for the whole batch, over all entries": oracles.log_mean_exp(y.flatten()[None])[0],
    }


def sums(*inputs: Tensor, results: Callable) -> dict[str, Tensor]:
    """Of results (B, F) their sums (B,), with what any sum may get wrong."""
    named = {name: oracles.per_example(value) for name, value in results(*inputs).items()}
    named |= for_batch(named[RIGHT])
    terms = results(*inputs)[RIGHT]
    return named | {
        "the mean over the features, not the sum": terms.mean(1),
        "summed over the batch, not the features": terms.sum(0),
        "averaged over the batch, not summed over the features": terms.mean(0),
        "one number for the whole batch, the mean of all entries": terms.mean(),
        "not summed over the features": terms,
    }


BERNOULLI = Formula(["mu", "target"], partial(sums, results=bernoulli), lambda mu, y: [0.5 + 0.4 * mu, (y > 0).float()])
NORMAL = Formula(["mu", "logvar", "z"], partial(sums, results=normal))
MEAN_EXP = Formula(["y"], log_mean_exp)
KL = Formula(
    ["mu_q", "logvar_q", "mu_p", "logvar_p"],
    partial(sums, results=kl),
    # with both wide, and q wider than p, an estimate that forgets a variance is far off
    lambda mu_q, logvar_q, mu_p, logvar_p: [mu_q, 1.1 + 0.3 * logvar_q, mu_p, 0.6 + 0.4 * logvar_p],
)


def check_stability(call: Callable) -> None:
    for shift in (-500.0, 500.0):
        y = 3 * draw(8, 5) + shift
        got = tensor(call([y])["value"])
        if not got.isfinite().all():
            raise Wrong(f"not finite for entries near {shift:g}: subtract the maximum before exp")
        # without the shift, or the tolerance would be that of large numbers
        compare(got - shift, {name: value - shift for name, value in log_mean_exp(y.double()).items()})


B = 2  # examples, each SAMPLES times
MC_SUM = "the sum over the samples, not the mean"


def estimates(reply: dict, b: int) -> Tensor:
    """The submission's estimates, (B,) or (B, 1)."""
    got = tensor(reply["value"])
    if got.dim() == 0:
        raise Wrong(f"expected shape ({b},), got ()", ["one number for the whole batch"])
    return got if got.shape == (b, 1) else tensor(got, (b,))


def check_noise(got: Tensor) -> None:
    if got.std(0).max() < 0.01:
        raise Wrong("a closed form, or one noise for all?: expected other estimates, got the same", ["z has no noise"])


def check_mc(call: Callable, num_samples: int) -> None:
    """SAMPLES estimates of one sample, or one of SAMPLES samples, against the KL."""
    inputs = KL.inputs(B, 3)
    for x, shift in zip(inputs, (-3, -1.5, 0, -0.5), strict=True):
        x[1] += shift  # so that the two KLs, right or mistaken, are further apart than their noise
    error = (oracles.per_example(oracles.kl_variance(*inputs)) / SAMPLES).sqrt().double()
    count, more = (SAMPLES, []) if num_samples == 1 else (1, [num_samples])
    got = estimates(call([*(x.repeat(count, 1) for x in inputs), *more]), B * count)
    got = got.view(count, B, *got.shape[1:])
    if count > 1:
        check_noise(got)
    results = KL.results(*inputs)
    results[MC_SUM] = num_samples * results[RIGHT]
    compare(got.mean(0), results, STANDARD_ERRORS * error)


def check_mc_noise(call: Callable) -> None:
    mu_q, logvar_q, mu_p, logvar_p = KL.inputs(1, 2)
    batch = [mu_q, 0.3 * logvar_q, mu_p, 0.3 * logvar_p]  # their noise is nearly normal
    noisy = [x.repeat(SAMPLES, 1) for x in batch]
    single, many = (estimates(call([*noisy, *more]), SAMPLES) for more in ([], [9]))
    check_noise(single)
    ratio = (single.std() / many.std()).item()
    if not 2.4 < ratio < 3.6:
        mistakes = [MC_SUM] if ratio < 0.5 else ["num_samples makes no difference"] if ratio < 1.2 else []
        raise Wrong(f"expected the noise with 1 sample to be 3 times that with 9, got {ratio:.3g} times", mistakes)


def check_mc_gradient(call: Callable) -> None:
    inputs = KL.inputs(B, 3)
    reply = call([x.repeat(SAMPLES, 1) for x in inputs], grad=[0, 1, 2, 3], weights=torch.ones(B * SAMPLES))
    estimates(reply, B * SAMPLES)
    leaves = KL.leaves(inputs)
    mu_q, logvar_q, *p = leaves.values()
    results = KL.results(mu_q, logvar_q, *p)
    results["z is not reparameterised, or detached"] = KL.results(mu_q.detach(), logvar_q.detach(), *p)[RIGHT]
    compare_gradients(reply["gradients"], results, leaves, torch.ones(B))


def distance(p: Tensor, q: Tensor, w: Tensor) -> dict[str, Tensor]:
    f_p, f_q = (oracles.per_example(w * x + x**2 / 2) for x in (p, q))
    right = f_p.mean() - f_q.mean()
    return {
        RIGHT: right,
        "the sign, or p and q are swapped": -right,
        "the sum in place of the mean": len(p) * right,
        "the sum of the means, not the difference": f_p.mean() + f_q.mean(),
        "only p counts": f_p.mean(),
        "the absolute value": right.abs(),
        "the mean over the batch is missing": f_p - f_q,
    }


DISTANCE = Formula(["p", "q", "w"], distance, lambda p, q, w: [p, 0.5 * q, w[0]])  # w: of the child's critic
VECTORS, IMAGES = "(B, F)", "images (B, C, H, W)"
PENALTY_SHAPES = {VECTORS: (5,), IMAGES: (3, 4, 4)}


def penalty(call: Callable, *kinds: str) -> tuple[dict, Tensor, Tensor, Tensor, Tensor]:
    """lp_reg's reply to 64 pairs of the first kind that it takes, the pairs, its interpolates, and the critic's w."""
    shape = PENALTY_SHAPES[kinds[0]]
    scale = torch.linspace(-6, 6, 64).clamp(min=0.1).view(-1, *[1] * len(shape)) * (4.5 / math.prod(shape)) ** 0.5
    x, y = scale * draw(64, *shape), scale * draw(64, *shape, seed=1)  # half of the gradients are well below 1
    w = draw(*shape, seed=7) / math.prod(shape) ** 0.5
    try:
        reply = call([x, y, {"w": w}], weights=torch.ones(1))
        tensor(reply["value"])  # there is a penalty
        seen = torch.cat([x[:0], *reply["seen"]])  # all at once, or one by one
        if len(seen) < 64 or len(reply["seen"][-1]) > 64:
            raise Wrong(f"the critic is not given 64 interpolates of shape {shape}")
        return reply, x, y, seen[-64:], w
    except Wrong as wrong:
        if kinds[1:]:
            return penalty(call, *kinds[1:])
        if "does not require grad" in wrong.seen or "not have been used in the graph" in wrong.seen:
            raise Wrong(wrong.seen, ["the interpolate needs requires_grad_()"]) from None
        raise


def penalties(gradient: Tensor) -> dict[str, Tensor]:
    """What becomes of the critic's gradient (64, ...) at the interpolates."""
    norm, whole = gradient.flatten(1).norm(dim=1), gradient.norm()
    excess = (norm - 1).clamp(min=0)
    results = {
        RIGHT: oracles.lp_penalty(gradient),
        "two-sided, norms below 1 count": ((norm - 1) ** 2).mean(),
        "the sum in place of the mean": (excess**2).sum(),
        "10 times the penalty": 10 * (excess**2).mean(),
        "the square is missing": excess.mean(),
        "the mean is squared, not the excess of each example": excess.mean() ** 2,
        "not averaged over the batch": excess**2,
        "one norm for the whole batch": (whole - 1).clamp(min=0) ** 2,
        "the square root of the norm is missing": (norm**2 - 1).clamp(min=0).square().mean(),
        "norms below 1 count, norms above do not": ((1 - norm).clamp(min=0) ** 2).mean(),
        "1 is not subtracted": (norm**2).mean(),
        "the 1-norm": (gradient.flatten(1).abs().sum(1) - 1).clamp(min=0).square().mean(),
        "the gradient of the critic's mean, 1/B of each example's": ((norm / 64 - 1).clamp(min=0) ** 2).mean(),
        "two-sided, of the gradient of the critic's mean": ((norm / 64 - 1) ** 2).mean(),
    }
    for axis in range(gradient.dim()):
        name = "the last axis" if axis == gradient.dim() - 1 else f"axis {axis}"
        short = gradient.norm(dim=axis) - 1
        results[f"the norm is taken over {name} only"] = short.clamp(min=0).square().mean()
        results[f"two-sided, the norm is taken over {name} only"] = short.square().mean()
    return results


def check_penalty(call: Callable, kind: str, other: str = "") -> None:
    """Of one kind of pairs; where it is right for the other, say so."""
    try:
        reply, *_, x_hat, w = penalty(call, kind)
        compare(reply["value"], penalties(w + x_hat))
    except Wrong as wrong:
        if other:
            with contextlib.suppress(Wrong):
                check_penalty(call, other)
                wrong = Wrong(f"works for {other}, not for {kind}: {wrong}")
        raise wrong from None


def check_coefficients(call: Callable) -> None:
    """x_hat = alpha x + (1 - alpha) y with alpha in [0, 1], the same within an example, another for each."""
    _, *points, _ = penalty(call, IMAGES, VECTORS)
    x, y, x_hat = (v.flatten(1) for v in points)
    alpha = ((x_hat - y) * (x - y)).sum(1) / (x - y).square().sum(1)
    if not close(x_hat, alpha[:, None] * x + (1 - alpha[:, None]) * y):
        raise Wrong("more than one coefficient within an example, or none: expected x_hat = alpha x + (1 - alpha) y")
    low, high = alpha.min().item(), alpha.max().item()
    if high - low < 1e-3:
        raise Wrong(f"one coefficient for the whole batch: expected 64 different, got {low:.3g} for all")
    if not (-0.001 < low < 0.2 and 0.8 < high < 1.001):
        raise Wrong(f"coefficients not uniform: expected 0 to 1, got {low:.3g} to {high:.3g}")


def check_penalty_gradient(call: Callable) -> None:
    reply, _, _, x_hat, w = penalty(call, VECTORS, IMAGES)
    if reply["gradients"][0] is None:
        raise Wrong("no gradient reaches the critic: create_graph=True is missing, or a detach() too many")
    w = w.double().requires_grad_()
    compare_gradients(reply["gradients"], penalties(w + x_hat), {"the critic's weights": w}, torch.ones(1))


DIM, PRED_DIM = 16, 8
SWAPPED = "expected p1, p2, z1, z2, got z1, z2, p1, p2"
FROM_DETACHED = "p is made from a detached z"
VIEWS = [draw(8, 3, 32, 32), draw(8, 3, 32, 32, seed=1)]
PREDICTOR = oracles.predictor_parameters(DIM, PRED_DIM)


def siamese(call: Callable, stop_gradient: bool = True, mode: str | None = None, views: list = VIEWS) -> tuple:
    """p1, p2, z1, z2 of two batches of 8 images, and the whole reply with the gradient of p1."""
    init = ["resnet18", DIM, PRED_DIM, stop_gradient, mode]
    reply = call(views, init=init, grad=[0], weights=draw(8, DIM, seed=5))
    outputs = reply["value"] if isinstance(reply["value"], list) else [reply["value"]]
    if len(outputs) != 4:
        raise Wrong(f"expected p1, p2, z1, z2, got {len(outputs)} of them")
    return [tensor(output, (8, DIM)) for output in outputs], reply


def check_outputs(call: Callable) -> None:
    p1, p2, z1, z2 = siamese(call)[0]
    normalised = tuple(close(x.mean(0), torch.zeros(DIM), 0.01) for x in (p1, p2, z1, z2))  # z, by its last layer
    mistakes = {
        (True, True, False, False): SWAPPED,
        (False, True, False, True): "expected p1, p2, z1, z2, got p1, z1, p2, z2",
        (True, True, True, True): "p is z: the predictor is not used",
        (False, False, False, False): "z is not normalised: expected a mean of 0 over the batch",
    }
    if normalised != (False, False, True, True):
        raise Wrong("", [mistakes.get(normalised, "p1 and p2, or z1 and z2, are not made alike")])
    swapped = siamese(call, views=VIEWS[::-1])[0]
    for got, expected, name in zip(swapped, (p2, p1, z2, z1), ("p1", "p2", "z1", "z2"), strict=True):
        if not close(got, expected, 0.05):
            raise Wrong(f"{name} is not that of its view: with x1 and x2 swapped, {numbers(got, expected)}")


def check_detached(reply: dict, where: str) -> None:
    """That z is detached and p is not, with an encoder that learns through p."""
    p1, p2, z1, z2 = reply["requires_grad"]
    if not (p1 or p2) and z1 and z2:
        raise Wrong("", ["p is detached instead of z", SWAPPED])
    if z1 or z2:
        raise Wrong(where, ["z is not detached"])
    if not (p1 and p2):
        raise Wrong("one of p1 and p2 is detached") if p1 or p2 else Wrong("p is detached, too", [FROM_DETACHED])
    check_encoder_gradient(reply)


def check_encoder_gradient(reply: dict) -> None:
    if reply["gradients"][0] is None or not reply["gradients"][0].any():
        swapped = ["p is detached instead of z", SWAPPED] if all(reply["requires_grad"][2:]) else []
        raise Wrong("no gradient of p1 reaches the encoder", [*swapped, FROM_DETACHED])


def check_detaching(call: Callable) -> None:
    check_detached(siamese(call)[1], "with stop_gradient=True")
    if not all(siamese(call, stop_gradient=False)[1]["requires_grad"]):
        raise Wrong("z is detached, although stop_gradient=False")


def check_no_predictor(call: Callable) -> None:
    outputs, reply = siamese(call, mode="no_pred_mlp")
    p, z = torch.cat(outputs[:2]), torch.cat(outputs[2:])
    if not close(p, z):
        raise Wrong(f"p is not z in MLP_mode 'no_pred_mlp': {numbers(p, z)}")
    check_detached(reply, "with MLP_mode='no_pred_mlp'")


def check_fixed_predictor(call: Callable) -> None:
    (p1, *_), reply = siamese(call, mode="fixed_random_init")
    trained = siamese(call)[1]["trained"] - reply["trained"]
    if trained != PREDICTOR:
        text = "the predictor is not frozen" if trained == 0 else "not just the predictor is frozen"
        raise Wrong(f"{text}: expected {PREDICTOR} frozen parameters in MLP_mode 'fixed_random_init', got {trained}")
    if close(p1, reply["value"][2]):
        raise Wrong("p is z in MLP_mode 'fixed_random_init': the predictor is not used")
    check_encoder_gradient(reply)


def loss(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
    right, cosine = oracles.simsiam_loss(p1, p2, z1, z2), F.cosine_similarity
    return {
        RIGHT: right,
        "the sign": -right,
        "not halved": 2 * right,
        "halved twice": right / 2,
        "the sum over the batch, not the mean": len(p1) * right,
        "p1 with z1, p2 with z2": oracles.simsiam_loss(p1, p2, z2, z1),
        "p1 with p2": -cosine(p1, p2).mean(),
        "only one of the two terms": -cosine(p1, z2).mean(),
        "only one of the two terms, halved": -cosine(p1, z2).mean() / 2,
        "1 + the loss": 1 + right,
        "the similarity along the batch": -(cosine(p1, z2, 0).mean() + cosine(p2, z1, 0).mean()) / 2,
        "not normalised": -((p1 * z2).sum(1).mean() + (p2 * z1).sum(1).mean()) / 2,
        "not averaged over the batch": -(cosine(p1, z2) + cosine(p2, z1)) / 2,
    }


LOSS_REQUEST = {"init": ["resnet18", DIM, PRED_DIM, False, None], "method": "loss"}
LOSS = Formula(["p1", "p2", "z1", "z2"], loss, request=LOSS_REQUEST)


def cosine(x: Tensor, y: Tensor, dim: int = 1) -> dict[str, Tensor]:
    right, products = F.cosine_similarity(x, y, dim), (x * y).sum(dim)
    others = [axis for axis in range(x.dim()) if axis != dim]
    mistakes = for_batch(right) | {f"along axis {i}, not {dim}": F.cosine_similarity(x, y, i) for i in others}
    return mistakes | {
        "not divided by the norms": products,
        "1 - cosine": 1 - right,
        "divided by the squares of the norms": products / (x.square().sum(dim) * y.square().sum(dim)),
        "divided by one norm only": products / x.norm(dim=dim),
        "the mean over the axis, not the sum": right / x.shape[dim],
    }


COSINE = Formula(["x", "y"], cosine, request={"init": []})


def check_axes(call: Callable) -> None:
    for dim, shape in ((0, (8, 5)), (1, (3, 40)), (-1, (2, 3, 5)), (1, (2, 3, 5))):
        x, y = COSINE.inputs(*shape)
        compare(call([x, y], init=[dim])["value"], cosine(x, y, dim))


def check_zero_vectors(call: Callable) -> None:
    x, y = torch.zeros(3, 5), draw(3, 5)
    got = call([x, y], init=[])["value"]
    if isinstance(got, Tensor) and not got.isfinite().all():
        raise Wrong("not finite for a zero vector: eps is not in the denominator; expected 0, got nan")
    compare(got, cosine(x, y))


def formula_checks(formula: Formula, leaves: list[str], others: dict | None = None) -> dict[str, Callable]:
    return {
        "values": partial(check_values, formula=formula, sizes=[(8, 5)]),
        **(others or {"other sizes": partial(check_values, formula=formula, sizes=[(3, 784), (6, 1), (17, 2)])}),
        "one example": partial(check_values, formula=formula, sizes=[(1, 9)]),
        "gradient": partial(check_gradient, formula=formula, size=(8, 5), names=leaves),
    }


COSINE_CHECKS = {"other axes": check_axes, "zero vectors": check_zero_vectors}
CHECKS = {
    "log_likelihood_bernoulli": formula_checks(BERNOULLI, ["mu"]),
    "log_likelihood_normal": formula_checks(NORMAL, NORMAL.names),
    "log_mean_exp": formula_checks(MEAN_EXP, MEAN_EXP.names) | {"no overflow": check_stability},
    "kl_gaussian_gaussian_analytic": formula_checks(KL, KL.names),
    "kl_gaussian_gaussian_mc": {
        "unbiased with one sample": partial(check_mc, num_samples=1),
        "noise falls with the samples": check_mc_noise,
        "unbiased with many samples": partial(check_mc, num_samples=SAMPLES),
        "unbiased gradient": check_mc_gradient,
    },
    "vf_wasserstein_distance": {
        "values": partial(check_values, formula=DISTANCE, sizes=[(6, 5)]),
        "images": partial(check_values, formula=DISTANCE, sizes=[(6, 3, 4, 4)]),
        "gradient of the critic": partial(check_gradient, formula=DISTANCE, size=(6, 5), names=["w"]),
        "gradient of the samples": partial(check_gradient, formula=DISTANCE, size=(6, 5), names=["p", "q"]),
    },
    "lp_reg": {
        "(B, F)": partial(check_penalty, kind=VECTORS, other=IMAGES),
        "(B, C, H, W)": partial(check_penalty, kind=IMAGES, other=VECTORS),
        "coefficients": check_coefficients,
        "gradient of the critic": check_penalty_gradient,
    },
    "SimSiam": {
        "outputs": check_outputs,
        "stop-gradient": check_detaching,
        "no_pred_mlp": check_no_predictor,
        "fixed_random_init": check_fixed_predictor,
    },
    "SimSiam.loss": {
        "values": partial(check_values, formula=LOSS, sizes=[(8, DIM)]),
        "other sizes": partial(check_values, formula=LOSS, sizes=[(5, 7), (32, 3)]),
        "gradient of p": partial(check_gradient, formula=LOSS, size=(8, DIM), names=["p1", "p2"]),
        "gradient of z": partial(check_gradient, formula=LOSS, size=(8, DIM), names=["z1", "z2"]),
    },
    "CosineSimilarity": formula_checks(COSINE, COSINE.names, COSINE_CHECKS),
}
