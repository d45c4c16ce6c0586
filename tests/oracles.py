"""What the assignment's functions must give, by torch.distributions or in closed form; for the tests and the grader."""

import math
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence


def per_example(x: Tensor) -> Tensor:
    """Sum (B, ...) over all but the first axis: (B,)."""
    return x.reshape(len(x), -1).sum(1)


def std(logvar: Tensor) -> Tensor:
    return (0.5 * logvar).exp()


# --- Problem 1: one term for each entry, to be summed by `per_example` ------------------------------------------------


def log_bernoulli(mu: Tensor, target: Tensor) -> Tensor:
    return Bernoulli(mu).log_prob(target)


def log_normal(mu: Tensor, logvar: Tensor, z: Tensor) -> Tensor:
    return Normal(mu, std(logvar)).log_prob(z)


def kl(mu_q: Tensor, logvar_q: Tensor, mu_p: Tensor, logvar_p: Tensor) -> Tensor:
    return kl_divergence(Normal(mu_q, std(logvar_q)), Normal(mu_p, std(logvar_p)))


def kl_variance(mu_q: Tensor, logvar_q: Tensor, mu_p: Tensor, logvar_p: Tensor) -> Tensor:
    """Variance of log q(z) - log p(z) under q, which is a eps^2 + b eps and a constant for eps ~ N(0, 1)."""
    a = ((logvar_q - logvar_p).exp() - 1) / 2
    b = (mu_q - mu_p) * std(logvar_q) * (-logvar_p).exp()
    return 2 * a**2 + b**2


def log_mean_exp(y: Tensor) -> Tensor:
    """(B, K) to (B,)."""
    return y.logsumexp(1) - math.log(y.shape[1])


# --- Problem 2 --------------------------------------------------------------------------------------------------------


def lp_penalty(gradient: Tensor) -> Tensor:
    """The one-sided penalty of a critic with this gradient (B, ...) at the interpolates."""
    return (per_example(gradient**2).sqrt() - 1).clamp(min=0).square().mean()


def generator_parameters(z_dim: int = 100, h_dim: int = 64) -> int:
    """Of its weights, biases and batch normalisations."""
    widths = (z_dim, 4 * h_dim, 2 * h_dim, h_dim, 3)
    return 16 * sum(a * b for a, b in pairwise(widths)) + sum(widths[1:]) + 2 * sum(widths[1:-1])


def critic_parameters(h_dim: int = 64) -> int:
    widths = (3, h_dim, 2 * h_dim, 4 * h_dim, 1)
    return 16 * sum(a * b for a, b in pairwise(widths)) + sum(widths[1:])


# --- Problem 3 --------------------------------------------------------------------------------------------------------


def simsiam_loss(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
    return -(F.cosine_similarity(p1, z2).mean() + F.cosine_similarity(p2, z1).mean()) / 2


def predictor_parameters(dim: int, pred_dim: int) -> int:
    """Of Linear without bias, batch normalisation, ReLU, Linear."""
    return 2 * dim * pred_dim + 2 * pred_dim + dim
