"""The grader: known mistakes cost their points and are named, accidents stay with their item, all files are found."""

import csv
import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path, PureWindowsPath

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # as `python tests/grade.py` has it

import grade
import grade_checks
from grade_child import Submission, send

ROOT = Path(__file__).parent.parent
HEAD = "import math\nimport torch\nimport numpy as np\nfrom torch import nn\n"

Q1 = """
import math
import torch
import numpy as np
from torch.utils.data import dataset

LOG_2PI = math.log(2 * math.pi)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

def log_likelihood_bernoulli(mu, target):
    batch_size = mu.size(0)
    mu, target = mu.view(batch_size, -1), target.view(batch_size, -1)
    return torch.sum(target * torch.log(mu) + (1 - target) * torch.log(1 - mu), dim=1)

def log_likelihood_normal(mu, logvar, z):
    batch_size = mu.size(0)
    mu, logvar, z = mu.view(batch_size, -1), logvar.view(batch_size, -1), z.view(batch_size, -1)
    var = torch.exp(logvar)
    return torch.sum(-0.5 * (LOG_2PI + logvar + (z - mu) ** 2 / var), dim=1)

def log_mean_exp(y):
    a = y.max(dim=1, keepdim=True)[0]
    return torch.log(torch.exp(y - a).mean(dim=1)) + a.squeeze(1)

def kl_gaussian_gaussian_analytic(mu_q, logvar_q, mu_p, logvar_p):
    batch_size = mu_q.size(0)
    mu_q, logvar_q = mu_q.view(batch_size, -1), logvar_q.view(batch_size, -1)
    mu_p, logvar_p = mu_p.view(batch_size, -1), logvar_p.view(batch_size, -1)
    ratio = (torch.exp(logvar_q) + (mu_q - mu_p) ** 2) / torch.exp(logvar_p)
    return 0.5 * torch.sum(logvar_p - logvar_q + ratio - 1, dim=1)

def kl_gaussian_gaussian_mc(mu_q, logvar_q, mu_p, logvar_p, num_samples=1):
    batch_size = mu_q.size(0)
    input_size = np.prod(mu_q.size()[1:])
    mu_q, logvar_q, mu_p, logvar_p = [
        x.view(batch_size, -1).unsqueeze(1).expand(batch_size, num_samples, input_size)
        for x in (mu_q, logvar_q, mu_p, logvar_p)
    ]
    z = mu_q + torch.exp(0.5 * logvar_q) * torch.randn_like(mu_q)
    log_q = -0.5 * (logvar_q + (z - mu_q) ** 2 / torch.exp(logvar_q))
    log_p = -0.5 * (logvar_p + (z - mu_p) ** 2 / torch.exp(logvar_p))
    return (log_q - log_p).sum(2).mean(1)

train_loader = exit("a download that must not run")
raise SystemExit("training that must not run")
"""

Q2_MODEL = """
import torch
from torch import nn

class Generator(nn.Module):
    def __init__(self, z_dim=100, h_dim=64):
        super().__init__()
        self.x = nn.Sequential(
            nn.ConvTranspose2d(z_dim, h_dim * 4, 8), nn.BatchNorm2d(h_dim * 4), nn.ReLU(inplace=True),
            nn.ConvTranspose2d(h_dim * 4, h_dim, 4, 2, 1), nn.BatchNorm2d(h_dim), nn.ReLU(inplace=True),
            nn.ConvTranspose2d(h_dim, 3, 4, 2, 1), nn.Tanh())
    def forward(self, z):
        return self.x(z.view(z.shape[0], -1, 1, 1))

class Critic(nn.Module):
    def __init__(self, h_dim=64):
        super().__init__()
        self.x = nn.Sequential(nn.Conv2d(3, h_dim, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(h_dim, 1, 16))
    def forward(self, x):
        return self.x(x).squeeze()
"""

Q2 = """
import torch
from torch import autograd
from q2_model import Critic, Generator

def vf_wasserstein_distance(p, q, critic):
    return critic(p).mean() - critic(q).mean()

def lp_reg(x, y, critic):
    alpha = torch.rand(x.size(0), *[1] * (x.dim() - 1), device=x.device)
    x_hat = (alpha * x + (1 - alpha) * y).requires_grad_(True)
    f = critic(x_hat)
    grad = autograd.grad(f, x_hat, grad_outputs=torch.ones_like(f), create_graph=True)[0]
    norm = grad.flatten(1).norm(2, dim=1)
    return torch.mean(torch.clamp(norm - 1, min=0) ** 2)
if __name__ == "__main__":
    critic = Critic().cuda()
"""

Q3 = """
import torch
from torch import nn

class SimSiam(nn.Module):
    def __init__(self, base_encoder, dim=2048, pred_dim=512, stop_gradient=True, MLP_mode=None):
        super().__init__()
        self.stop_gradient, self.MLP_mode = stop_gradient, MLP_mode
        self.encoder = base_encoder(num_classes=dim, zero_init_residual=True)
        prev_dim = self.encoder.fc.weight.shape[1]
        self.encoder.fc = nn.Sequential(
            nn.Linear(prev_dim, prev_dim, bias=False), nn.BatchNorm1d(prev_dim), nn.ReLU(inplace=True),
            nn.Linear(prev_dim, prev_dim, bias=False), nn.BatchNorm1d(prev_dim), nn.ReLU(inplace=True),
            self.encoder.fc, nn.BatchNorm1d(dim, affine=False))
        self.encoder.fc[6].bias.requires_grad = False
        self.predictor = nn.Sequential(
            nn.Linear(dim, pred_dim, bias=False), nn.BatchNorm1d(pred_dim), nn.ReLU(), nn.Linear(pred_dim, dim))
        if self.MLP_mode == "fixed_random_init":
            for param in self.predictor.parameters():
                param.requires_grad = False
            self.predictor[0].weight.data.normal_(mean=0.0, std=0.01)
            self.predictor[3].weight.data.normal_(mean=0.0, std=0.01)
            self.predictor[3].bias.data.zero_()
        elif self.MLP_mode == "no_pred_mlp":
            self.predictor = nn.Identity()
    def forward(self, x1, x2):
        z1 = self.encoder(x1)
        z2 = self.encoder(x2)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        if self.stop_gradient:
            z1, z2 = z1.detach(), z2.detach()
        return p1, p2, z1, z2
    def loss(self, p1, p2, z1, z2, similarity_function="CosineSimilarity"):
        criterion = CosineSimilarity(dim=1)
        return -(criterion(p1, z2).mean() + criterion(p2, z1).mean()) * 0.5

class CosineSimilarity(nn.Module):
    def __init__(self, dim=1, eps=1e-8):
        super().__init__()
        self.dim = dim
        self.eps = eps
    def forward(self, x1, x2):
        norms = torch.norm(x1, dim=self.dim) * torch.norm(x2, dim=self.dim)
        return torch.sum(x1 * x2, dim=self.dim) / torch.clamp(norms, min=self.eps)
"""

LAYOUT = {"q1_solution.py": Q1, "q2_model.py": Q2_MODEL, "q2_solution.py": Q2, "q3_solution.py": Q3}
SOURCE = Q1 + Q2_MODEL + Q2 + Q3

BERNOULLI, NORMAL, LME = "log_likelihood_bernoulli", "log_likelihood_normal", "log_mean_exp"
KL, MC, VF, LP = "kl_gaussian_gaussian_analytic", "kl_gaussian_gaussian_mc", "vf_wasserstein_distance", "lp_reg"
SIMSIAM, LOSS, COSINE = "SimSiam", "SimSiam.loss", "CosineSimilarity"

B_SUM = "torch.sum(target * torch.log(mu) + (1 - target) * torch.log(1 - mu), dim=1)"
N_SUM = "torch.sum(-0.5 * (LOG_2PI + logvar + (z - mu) ** 2 / var), dim=1)"
KL_SUM = "0.5 * torch.sum(logvar_p - logvar_q + ratio - 1, dim=1)"
LOG_Q = "(logvar_q + (z - mu_q) ** 2 / torch.exp(logvar_q))"
RATIO = "ratio = (torch.exp(logvar_q) + (mu_q - mu_p) ** 2) / torch.exp(logvar_p)"
Z = "z = mu_q + torch.exp(0.5 * logvar_q) * torch.randn_like(mu_q)"
MC_MEAN = "(log_q - log_p).sum(2).mean(1)"
LOG_MEAN = "torch.log(torch.exp(y - a).mean(dim=1)) + a.squeeze(1)"
ALPHA = "alpha = torch.rand(x.size(0), *[1] * (x.dim() - 1), device=x.device)"
PENALTY = "torch.mean(torch.clamp(norm - 1, min=0) ** 2)"
LOSS_LINE = "-(criterion(p1, z2).mean() + criterion(p2, z1).mean()) * 0.5"

VAR = "var = torch.exp(logvar)"
VF_LINE, NORM = "critic(p).mean() - critic(q).mean()", "norm = grad.flatten(1).norm(2, dim=1)"
DETACH, PREDICT = "z1, z2 = z1.detach(), z2.detach()", "self.predictor(z1), self.predictor(z2)"
CALLED = "    def __call__(self, *x):\n        return self.forward(*x)\n"
CLOSED_FORM = "kl_gaussian_gaussian_analytic(mu_q[:, 0], logvar_q[:, 0], mu_p[:, 0], logvar_p[:, 0])"
TABLE = "(B, 1) and (B,) are added, which gives (B, B)"
DROPPED = "squeeze() drops the batch axis of one example"

MISTAKES = [  # old text, new text, item, points lost, words of the hint
    (B_SUM, B_SUM.replace(", dim=1", ""), BERNOULLI, 0.5, "one number for the whole batch, its sum: expected"),
    (B_SUM, B_SUM + ".mean()", BERNOULLI, 0.5, "one number for the whole batch, its mean: expected shape (8,), got ()"),
    (B_SUM, B_SUM.replace("dim=1", "dim=1, keepdim=True"), BERNOULLI, 0.375, "expected shape (8,), got (8, 1)"),
    (B_SUM, B_SUM + ".squeeze()", BERNOULLI, 0.25, DROPPED + ": expected shape (1,), got ()"),
    (B_SUM, B_SUM.replace("torch.log(mu)", "torch.log(mu).detach()"), BERNOULLI, 0.25, "gradient of mu: expected"),
    (B_SUM, B_SUM + ".detach()", BERNOULLI, 0.25, "no gradient reaches mu"),
    (B_SUM, "torch.sum(target * torch.log(mu), dim=1)", BERNOULLI, 0.5, "(1 - target) log(1 - mu) is missing"),
    (B_SUM, "(target * mu + (1 - target) * (1 - mu)).sum(1)", BERNOULLI, 1, "expected -"),
    (B_SUM, "None", BERNOULLI, 1, "returns nothing"),
    (B_SUM, "print('1') or print('ValueError: mu')", BERNOULLI, 1, "returns nothing, prints: ValueError: mu"),
    (B_SUM, "torch.ones(8)", BERNOULLI, 1, "the same number for every input: expected -"),
    (B_SUM, B_SUM + ".tolist()", BERNOULLI, 1, "returns no tensor but a list or tuple"),
    (B_SUM, "torch.sum(unknown)", BERNOULLI, 1, "line 13: NameError: name 'unknown' is not defined"),
    (VAR, "logvar = 2 * logvar; " + VAR, NORMAL, 0.5, "the variance is taken for the standard deviation"),
    (VAR, "var = torch.exp(logvar / 2)", NORMAL, 0.5, "the squares are divided by the standard deviation"),
    (VAR, "var = torch.exp(2 * logvar)", NORMAL, 0.5, "the squares are divided by the squared variance"),
    (VAR, "var = torch.exp(-logvar)", NORMAL, 0.5, "the squares are multiplied by the variance"),
    (N_SUM, N_SUM.replace("LOG_2PI + ", ""), NORMAL, 0.5, "log(2 pi) is missing: expected"),
    (N_SUM, N_SUM.replace(" + logvar", ""), NORMAL, 0.5, "logvar, the log determinant, is missing"),
    (N_SUM, N_SUM.replace("torch.sum", "torch.mean"), NORMAL, 0.5, "the mean over the features, not the sum: expected"),
    (N_SUM, "-(logvar.sum(1, keepdim=True) + (LOG_2PI + (z - mu) ** 2 / var).sum(1)) / 2", NORMAL, 0.5, TABLE),
    (LOG_MEAN, LOG_MEAN.replace(".mean(", ".sum("), LME, 0.5, "log K is missing"),
    (LOG_MEAN, "torch.log(torch.exp(y).mean(dim=1))", LME, 0.2, "not finite for entries near -500"),
    (LOG_MEAN, LOG_MEAN.replace(" + a.squeeze(1)", ""), LME, 0.5, "the maximum is not added again"),
    (LOG_MEAN, "torch.logsumexp(y, 0) - math.log(y.shape[0])", LME, 0.5, "over the batch, not the samples"),
    (LOG_MEAN, LOG_MEAN.replace("a.squeeze(1)", "a"), LME, 0.5, f"{TABLE}: expected shape (8,), got (8, 8)"),
    (LOG_MEAN, f"({LOG_MEAN.replace('a.squeeze(1)', 'a')}).squeeze()", LME, 0.5, TABLE),
    (LOG_MEAN, "y.mean(dim=1)", LME, 1, "expected"),
    (f"{KL}(mu_q, logvar_q, mu_p, logvar_p)", f"{KL}(mu_p, logvar_p, mu_q, logvar_q)", KL, 0.5, "q and p are swapped"),
    (RATIO, f"logvar_q, logvar_p = logvar_q / 2, logvar_p / 2; {RATIO}", KL, 0.5, "the standard deviation is taken"),
    (RATIO, RATIO.replace("logvar_q", "logvar_q / 2").replace("logvar_p", "logvar_p / 2"), KL, 0.5, "in the ratio"),
    (KL_SUM, KL_SUM.replace("0.5 * ", ""), KL, 0.5, "the factor 1/2 is missing"),
    (KL_SUM, KL_SUM.replace(" - 1", ""), KL, 0.5, "-1 for each dimension is missing"),
    (KL_SUM, KL_SUM.replace("dim=1", "dim=0"), KL, 0.5, "summed over the batch, not the features"),
    (KL_SUM, "((logvar_p - logvar_q).sum(1) + (ratio - 1).sum(1, keepdim=True)) / 2", KL, 0.5, TABLE),
    (MC_MEAN, "torch.zeros(len(mu_q))", MC, 1, "the same number for every input: "),
    (MC_MEAN, "(log_p - log_q).sum(2).mean(1)", MC, 0.5, "the sign"),
    (MC_MEAN, "(log_q - log_p).sum(2).sum(1)", MC, 0.5, "3 times that with 9, got 0.3"),
    (MC_MEAN, "(log_q - log_p).sum(2).mean(1, keepdim=True)", MC, 0.25, "expected shape (2,), got (2, 1)"),
    (MC_MEAN, CLOSED_FORM, MC, 0.5, "z has no noise: a closed form, or one noise for all?"),
    (MC_MEAN, "(log_q - log_p).sum(2)[:, -1]", MC, 0.5, "num_samples makes no difference"),
    (LOG_Q, LOG_Q.replace("logvar_q + ", ""), MC, 0.5, "logvar_q, the log determinant of q, is missing"),
    (LOG_Q, "(logvar_q + (z - mu_q) ** 2)", MC, 0.5, "the squares of log q are not divided by the variance"),
    (LOG_Q, LOG_Q.replace("(logvar_q)", "(logvar_q / 2)"), MC, 0.5, "log q are divided by the standard deviation"),
    (Z, Z.replace("0.5 * ", ""), MC, 0.5, "the noise of z is scaled by the variance"),
    (Z, Z.replace("_q", "_p"), MC, 0.5, "z is drawn from p"),
    (Z, Z.replace("torch.randn_like(mu_q)", "torch.zeros_like(mu_q)"), MC, 0.5, "z has no noise: a closed form"),
    (Z, f"with torch.no_grad(): {Z}", MC, 0.25, "z is not reparameterised, or detached: gradient of mu_q: expected"),
    (VF_LINE, "critic(q).mean() - critic(p).mean()", VF, 0.5, "p and q are swapped"),
    (VF_LINE, "critic(p).sum() - critic(q).sum()", VF, 0.5, "the sum in place of the mean"),
    (VF_LINE, "(critic(p) - critic(q)).mean()", VF, 0, ""),  # of one size, by the starter
    (VF_LINE, "critic(p) - critic(q)", VF, 0.5, "the mean over the batch is missing"),
    (VF_LINE, "critic(p).mean() - critic(q.detach()).mean()", VF, 0.25, "no gradient reaches q"),
    (ALPHA, "alpha = torch.rand_like(x)", LP, 0.25, "more than one coefficient within an example"),
    (ALPHA, "alpha = torch.rand(1)", LP, 0.25, "one coefficient for the whole batch: expected 64 different, got 0."),
    (ALPHA, "alpha = torch.rand(x.size(0), 1, 1, 1)", LP, 0.25, "not for (B, F): the critic is not given 64 interp"),
    (ALPHA, ALPHA.replace("rand(", "randn("), LP, 0.25, "coefficients not uniform: expected 0 to 1, got -"),
    (NORM, "norm = grad.norm(2, dim=-1)", LP, 0.25, "the norm is taken over the last axis only"),
    (NORM, "norm = grad.norm(2, dim=(1, 2, 3))", LP, 0.25, "works for images (B, C, H, W), not for (B, F): wrong_"),
    (NORM, f"B, F = grad.shape; {NORM}", LP, 0.25, "works for (B, F), not for images (B, C, H, W): wrong_"),
    (NORM, "norm = grad.norm()", LP, 0.5, "one norm for the whole batch"),
    (PENALTY, "torch.mean((norm - 1) ** 2)", LP, 0.5, "two-sided, norms below 1 count"),
    (PENALTY, "10 * " + PENALTY, LP, 0.5, "10 times the penalty"),
    (PENALTY, PENALTY.replace(" ** 2", ""), LP, 0.5, "the square is missing"),
    (PENALTY, "None", LP, 1, "returns nothing"),
    (PENALTY, "torch.zeros(())", LP, 0.75, "the same number for every input: expected"),
    ("f = critic(x_hat)", "f = critic(x_hat).mean()", LP, 0.5, "the gradient of the critic's mean"),
    (", create_graph=True", "", LP, 0.25, "create_graph=True is missing"),
    (".requires_grad_(True)", "", LP, 0.5, "the interpolate needs requires_grad_()"),
    ("def lp_reg(x, y, critic)", "def lp_reg(x, y, critic, device='cuda')", LP, 0, ""),
    (DETACH, "p1, p2 = p1.detach(), p2.detach()", SIMSIAM, 0.5, "p is detached instead of z"),
    (DETACH, "pass", SIMSIAM, 0.5, "z is not detached: with stop_gradient=True"),
    ("if self.stop_gradient:", "if True:", SIMSIAM, 0.25, "z is detached, although stop_gradient=False"),
    (PREDICT, PREDICT.replace(")", ".detach())"), SIMSIAM, 0.5, "p is made from a detached z: no gradient of p1"),
    ("z2 = self.encoder(x2)", "z2 = self.encoder(x1)", SIMSIAM, 0.25, "p1 is not that of its view"),
    ("return p1, p2, z1, z2", "return z1, z2, p1, p2", SIMSIAM, 0.5, "got z1, z2, p1, p2"),
    ("param.requires_grad = False", "pass", SIMSIAM, 0.25, "the predictor is not frozen: expected 288 frozen"),
    ("self.predictor = nn.Identity()", "pass", SIMSIAM, 0.25, "p is not z in MLP_mode 'no_pred_mlp': expected"),
    (LOSS_LINE, LOSS_LINE.replace(" * 0.5", ""), LOSS, 0.5, "not halved"),
    (LOSS_LINE, "-(criterion(p1, z1).mean() + criterion(p2, z2).mean()) * 0.5", LOSS, 0.5, "p1 with z1, p2 with z2"),
    (LOSS_LINE, "-criterion(p1, z2).mean()", LOSS, 0.5, "only one of the two terms"),
    (LOSS_LINE, LOSS_LINE.replace("z2", "z2.detach()"), LOSS, 0.25, "no gradient reaches z2"),
    ("CosineSimilarity(dim=1)", "CosineSimilarity(dim=0)", LOSS, 0.5, "the similarity along the batch"),
    ("class CosineSimilarity(nn.Module):", "class CosineSimilarity:\n" + CALLED, COSINE, 0, ""),
    ("self.dim = dim", "self.dim = 0", COSINE, 0.5, "along axis 0, not 1"),
    ("self.dim = dim", "self.dim = 0", LOSS, 0, ""),  # of a wrong similarity, which costs that alone
    ("self.dim = dim", "self.dim = 1", COSINE, 0.2, "along axis 1, not 0"),
    (" / torch.clamp(norms, min=self.eps)", "", COSINE, 0.5, "not divided by the norms"),
    ("torch.clamp(norms, min=self.eps)", "norms", COSINE, 0.2, "not finite for a zero vector"),
    (" / torch.clamp(norms", ".squeeze() / torch.clamp(norms.squeeze()", COSINE, 0.2, DROPPED),
]


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    """One child with all wrong submissions, a file each, beside the correct one."""
    folder = tmp_path_factory.mktemp("work") / "submission"
    folder.mkdir()
    for i, (old, new, *_) in enumerate(MISTAKES):
        assert SOURCE.count(old) == 1, old
        (folder / f"wrong_{i}.py").write_text(SOURCE.replace(old, new), encoding="utf-8")
    child = grade.Child(folder, 600)
    yield child
    child.stop()


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistake_costs_its_points_and_is_named(child, number):
    _, _, name, lost, words = MISTAKES[number]
    result = grade.grade_definition(child, name, {"file": str(child.folder / f"wrong_{number}.py"), "number": None})
    assert words in grade.first_note(result)
    assert 1 - result["share"] == pytest.approx(lost)


def test_two_sided_penalty_is_far_from_the_right_one():
    for kind in grade_checks.PENALTY_SHAPES:
        *_, x, w = grade_checks.penalty(lambda args, **_: {"value": args[0], "seen": [(args[0] + args[1]) / 2]}, kind)
        right, wrong, *_ = grade_checks.penalties(w + x).values()
        assert wrong - right > 10 * (1e-4 + 1e-3 * right)  # of what is let pass


def test_mistake_is_not_named_where_the_answers_that_it_explains_are_equal():
    results = {grade_checks.RIGHT: torch.tensor([1.0, 2.0]), "a mistake": torch.tensor([0.1, 0.3])}
    with pytest.raises(grade_checks.Wrong) as wrong:
        grade_checks.compare(torch.tensor([0.2, 0.3]), results, 0.2)
    assert str(wrong.value) == "expected 2, got 0.3"


@pytest.fixture
def few_items(monkeypatch):
    """Items of each problem, none of which needs torchvision."""
    monkeypatch.setattr(grade, "ITEMS", {LME: 2, MC: 1, LP: 1, VF: 1, COSINE: 1})
    monkeypatch.setattr(grade, "NUMBERS", {LME: "1.1", MC: "1.2", LP: "2.1", VF: "2.2", COSINE: "3.1"})


@pytest.fixture
def starts(monkeypatch):
    """One entry for each start of a child."""
    starts, start = [], grade.Child.start
    monkeypatch.setattr(grade.Child, "start", lambda child: (starts.append(child), start(child)))
    return starts


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def rows_of(path):
    return list(csv.reader(path.read_text("utf-8").splitlines()))


def notebook(*cells):
    cells = [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]
    return json.dumps({"cells": [{"cell_type": "markdown", "source": ["# def lp_reg"]}, *cells]})


def test_a_missing_gradient_is_not_named_by_a_mistake_of_other_values():
    right = grade_checks.LOSS.results(*grade_checks.LOSS.inputs(8, grade_checks.DIM))[grade_checks.RIGHT]
    with pytest.raises(grade_checks.Wrong) as wrong:
        grade_checks.CHECKS[LOSS]["gradient of z"](lambda *_, **__: {"value": right, "gradients": [None, None]})
    assert str(wrong.value) == "no gradient reaches z1"


def test_child_that_cannot_start_ends_the_run(few_items, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SystemExit, match="the child process did not start"):
        grade.main([str(write(tmp_path / "bob", LAYOUT))])


def test_every_layout_is_read_and_results_are_written(few_items, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("starter"), LAYOUT)
    wrong = LAYOUT | {"q2_solution.py": Q2.replace(" ** 2", "").replace("device=x.device", "device='cuda'")}
    with zipfile.ZipFile("packed.zip", "w") as archive:
        for name, text in wrong.items():
            archive.writestr(f"homework/src/{name}", text)
        archive.writestr("__MACOSX/homework/._q1_solution.py", "\0 attributes, not Python")
    magic = "%matplotlib inline\n!pip install something\nimport os"
    on_gpu = Q2.replace("(alpha * x", "(alpha * x.cuda()").replace("y, critic):", "y, critic, device):")
    text = notebook(magic, Q1, "half a cell (", Q2_MODEL, on_gpu, Q3, "%%time\nmain()")
    Path("my homework.ipynb").write_text(text, encoding="utf-8")
    grade.main(["starter", "packed.zip", "my homework.ipynb", *"--jobs 2 --csv out.csv --json out.json".split()])
    printed = capsys.readouterr().out
    header, *points = rows_of(Path("out.csv"))
    names = [f"1.1 {LME}", f"1.2 {MC}", f"2.1 {LP}", f"2.2 {VF}", f"3.1 {COSINE}"]
    assert header == ["submission", *names, "total", "needs a human", "notes"]
    assert [row[1:-2] for row in points] == ["2 1 1 1 1 6".split(), "2 1 0.5 1 1 5.5".split(), "2 1 1 1 1 6".split()]
    assert [row[-2] for row in points] == ["", "", ""]
    assert re.search(r"  2\.1 lp_reg +0\.5 / 1   the square is missing: expected [\d.]+, got [\d.]+\n", printed)
    results = json.loads(Path("out.json").read_text())["submissions"]
    assert list(results[0]) == ["path", "points", "possible", "seconds", "needs_human", "items", "notes"]
    item = results[1]["items"][2]
    assert [item[key] for key in ("problem", "name", "points", "possible")] == [2, LP, 0.5, 1]
    assert [check["passed"] for check in item["checks"]] == [False, False, True, False]
    assert item["checks"][0]["note"].startswith("the square is missing")
    assert [check["note"] for check in item["checks"][1:]] == ["the same mistake", "", "the same mistake"]
    assert [result["notes"] for result in results[:2]] == [[], ["asks for a GPU, runs on the CPU here"]]
    assert {"asks for a GPU, runs on the CPU here", "lp_reg has an extra parameter: device"} <= {*results[2]["notes"]}
    assert results[2]["notes"][0].startswith("my homework.ipynb cell 4 line 1 cannot be read: SyntaxError")


def test_gradescope_file_has_a_test_for_each_item_and_grading_twice_gives_the_same(few_items, tmp_path):
    numpy_z = Z.replace("torch.randn_like(mu_q)", "torch.from_numpy(np.random.rand(*mu_q.shape)).float()")
    text = SOURCE.replace(ALPHA, "alpha = torch.rand_like(x)").replace(Z, numpy_z)
    folder = write(tmp_path / "bob", {"anything.py": text})
    contents = []
    for _ in range(2):
        grade.main([str(folder), "--gradescope", str(tmp_path / "results.json")])
        contents.append(json.loads((tmp_path / "results.json").read_text()))
        assert contents[-1].pop("execution_time") > 0
        assert "bob" in contents[-1].pop("output")
    assert contents[0] == contents[1]
    assert set(contents[0]) == {"score", "tests"} and contents[0]["score"] == 5.25
    tests = {test["name"]: test for test in contents[0]["tests"]}
    assert [test["number"] for test in tests.values()] == ["1.1", "1.2", "2.1", "2.2", "3.1"]
    output = tests[LP].pop("output")
    assert tests[LP] == {"name": LP, "number": "2.1", "score": 0.75, "max_score": 1, "status": "failed"}
    assert "coefficients: more than one coefficient within an example" in output and "(B, F): passed" in output
    assert "uniform noise in place of normal: expected" in tests[MC]["output"]  # got: a number of their own seed
    assert tests[LME]["status"] == "passed" and tests[LME]["max_score"] == 2


def test_this_repository_gets_full_marks_from_anywhere(tmp_path):
    command = [sys.executable, str(ROOT / "tests" / "grade.py"), str(ROOT)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stderr == "" and list(tmp_path.iterdir()) == []
    first, *items = run.stdout.strip().splitlines()
    assert " 10 / 10 " in first and [item[-5:] for item in items] == ["1 / 1"] * 10


LOOP = """
import ctypes, os, sys

def loop():
    while True:
        pass
"""
ACCIDENTS = [  # in one submission: file, old text, new text
    ("q1_solution.py", B_SUM, "sys.exit(0)"),
    ("q1_solution.py", N_SUM, "os._exit(3)"),
    ("q1_solution.py", LOG_MEAN, "torch.empty(2**31)"),
    ("q1_solution.py", KL_SUM, "[print('x' * 10**6) for _ in range(10**6)]"),
    ("q1_solution.py", MC_MEAN, "loop()"),
    ("q2_solution.py", "from q2_model import Critic, Generator", "import ctypes"),
    ("q2_solution.py", "critic(p).mean() - critic(q).mean()", "ctypes.string_at(0)"),
    ("q3_solution.py", "class SimSiam(nn.Module):", "class SimSiam(nn.Module:"),
    ("q3_solution.py", "class CosineSimilarity(nn.Module)", "import lost\nclass CosineSimilarity(lost.Module)"),
]
CONSEQUENCES = {  # points and words of each item's line
    BERNOULLI: (0, "ended the process, exit status 0: sys.exit or os._exit?"),
    NORMAL: (0, "ended the process, exit status 3: sys.exit or os._exit?"),
    LME: (0, "asked for more than 4 GB of memory"),
    KL: (0, "printed or wrote more than 16 MB"),
    MC: (0, "used 3 s of processor time: an endless loop?"),
    VF: (0, "crashed: SIGSEGV"),
    LP: (1, ""),
    SIMSIAM: (0, "not found"),
    LOSS: (0, "not found"),
    COSINE: (0, "not found: q3_solution.py line 37: ModuleNotFoundError: No module named 'lost'"),
}


@pytest.fixture(scope="module")
def accidents(tmp_path_factory):
    """The result of a submission with an accident of each kind."""
    files = dict(LAYOUT)
    for name, old, new in ACCIDENTS:
        assert files[name].count(old) == 1
        files[name] = files[name].replace(old, new)
    files["q1_solution.py"] += LOOP
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(grade.LIMITS, "call", 3)  # on a busy machine with a GPU a right answer took one second
        return grade.grade(write(tmp_path_factory.mktemp("accidents") / "carol", files), 300)


@pytest.mark.parametrize("name", list(CONSEQUENCES))
def test_accident_costs_its_item_alone_and_is_told(accidents, name):
    (item,) = [item for item in accidents["items"] if item["name"] == name]
    assert (item["points"], grade.first_note(item)) == CONSEQUENCES[name]


def test_statement_that_hangs_is_waited_for_once_and_costs_what_needs_it(few_items, starts, tmp_path, monkeypatch):
    monkeypatch.setitem(grade.LIMITS, "load", 1)
    hanging = f"{LOOP}\nLIMIT = open({str(tmp_path / 'log')!r}, 'a').write('x') and loop()\n"
    needing = Q1.replace("    a = y", "    LIMIT\n    a = y").replace(f"    {Z}", f"    LIMIT\n    {Z}")
    result = grade.grade(write(tmp_path / "frank", LAYOUT | {"q1_solution.py": hanging + needing}), 100)
    notes = [grade.first_note(item) for item in result["items"]]
    assert ["name 'LIMIT' is not defined" in note for note in notes] == [True, True, False, False, False]
    assert len(result["notes"]) == 1
    assert re.fullmatch("q1_solution.py line 8: used .* s of processor time: an endless loop.", result["notes"][0])
    assert result["points"] == 3 and len(starts) == 1 and (tmp_path / "log").read_text() == "x"
    assert result["needs_human"] == result["notes"][0]  # half of the points went with it


def test_submission_that_hangs_ends_with_its_timeout(starts, tmp_path):
    path = write(tmp_path, {"q1.py": HEAD + "def log_mean_exp(y):\n while True:\n  pass\n"}) / "q1.py"
    child = grade.Child(tmp_path, 300)
    child.ask("load", file=str(path), number=None, name=LME)
    process, child.deadline = child.process, time.monotonic() + 0.2
    for _ in range(2):
        with pytest.raises(grade.Accident, match="not finished in the 300 s of the whole submission"):
            child.call([torch.zeros(2, 2)])
    assert process.returncode == -signal.SIGKILL and len(starts) == 1


ESCAPE = """import os, shutil, signal

def log_mean_exp(y):
    fifo = open(FIFO, "w")
    if os.fork() == 0:
        os.setsid()
        signal.pause()
    shutil.rmtree(os.getcwd())
    os._exit(1)
"""


def test_what_a_submission_leaves_behind_is_ended_and_what_it_deletes_costs_itself(few_items, tmp_path, monkeypatch):
    monkeypatch.setitem(grade.LIMITS, "call", 2)  # its pipe is left open, so that it is waited for
    os.mkfifo(tmp_path / "fifo")
    text = ESCAPE.replace("FIFO", repr(str(tmp_path / "fifo")))
    folder = write(tmp_path / "mallory", {"q1.py": text, "q3.py": SOURCE.replace("def log_mean_exp", "def other")})
    with os.fdopen(os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)) as fifo:
        result = grade.grade(folder, 100)
        assert select.select([fifo], [], [], 60)[0] and fifo.read() == ""  # nobody has it open
    notes = [grade.first_note(item) for item in result["items"]]
    assert notes[0] == "no answer in 8 s" and notes[1:] == [""] * 4 and result["points"] == 4


STARTER = """
from torch import nn

def log_likelihood_bernoulli(mu, target):
    return

def log_mean_exp(y):
    raise NotImplementedError

def lp_reg(x, y, critic):
    pass

class SimSiam(nn.Module):
    def __init__(self, base_encoder, dim=2048, pred_dim=512, stop_gradient=True, MLP_mode=None):
        super().__init__()

    def forward(self, x1, x2):
        pass
"""


def test_untouched_starter_gets_nothing(tmp_path):
    result = grade.grade(write(tmp_path, {"q1_solution.py": STARTER, "q2_model.py": Q2_MODEL}), 300)
    assert (result["points"], result["possible"], result["needs_human"]) == (0, 10, "")  # much was left out
    notes = [grade.first_note(item) for item in result["items"] if item["name"] in (LP, SIMSIAM)]
    assert notes == ["returns nothing", "returns nothing"]


def test_expected_values_are_out_of_reach_and_patches_stay_in_the_child(few_items, tmp_path):
    patch = "torch.Tensor.abs = torch.Tensor.isfinite = torch.allclose = lambda *_: torch.ones(())"
    spy = "print('6 / 6') or 0 * y[:, 0] + sum(name in sys.modules for name in ('grade', 'grade_checks', 'oracles'))"
    text = SOURCE.replace(LOG_MEAN, spy).replace("    a = y", f"    import sys\n    {patch}\n    a = y")
    result = grade.grade(write(tmp_path / "eve", {"q.py": text}), 60)
    (item,) = [item for item in result["items"] if item["name"] == LME]
    assert item["points"] < 1 and grade.first_note(item).endswith("got 0")  # no such module
    assert result["points"] < 5 and result["needs_human"] == ""  # wrong, but found and executed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("lost", "lost does not exist"),
        (". --jobs 0", "--jobs and --timeout must be positive"),
        (". --timeout 0", "--jobs and --timeout must be positive"),
        (". --timeout soon", "argument --timeout: invalid float value: 'soon'"),
        (". --csv lost/grades.csv", "lost/grades.csv cannot be written"),
        (". --feedback lost/texts", "lost/texts cannot be written"),
        (". --csv other.csv", "other.csv is not a file of an earlier run"),
        (". . --gradescope results.json", "--gradescope takes one submission"),
        ("", "the following arguments are required: SUBMISSION"),
    ],
)
def test_bad_arguments_get_one_line_and_status_2(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("other.csv").write_text("name,points\n")
    with pytest.raises(SystemExit) as end:
        grade.main(arguments.split())
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"grade.py: {words}") and error.count("\n") == 1


def test_what_is_no_submission_is_a_row_with_a_note(few_items, starts, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.zip").write_bytes(b"PK")
    (tmp_path / "report.pdf").write_bytes(b"%PDF")
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    write(tmp_path / "other", {"a.html": "", "a.rar": "Rar!"})
    paths = [str(tmp_path / name) for name in ("empty", "broken.zip", "report.pdf", "lost", "other")]
    grade.main([*paths, "--csv", str(tmp_path / "out.csv")])
    _, *rows = rows_of(tmp_path / "out.csv")
    assert [row[:-2] for row in rows] == [[Path(path).name, *["0"] * 6] for path in paths]
    assert [row[-2] for row in rows] == [
        "not found",
        "broken.zip cannot be read: neither a .zip nor a .tar file; not found",
        "report.pdf cannot be read: no .py or .ipynb file; not found",
        f"cannot be read: [Errno 2] No such file or directory: '{paths[3]}'; not found",
        "a.rar cannot be read: neither a .zip nor a .tar file; a.html cannot be read: no .py or .ipynb file; not found",
    ]
    printed = capsys.readouterr().out
    assert printed.count("no .py or .ipynb file\n") == 5 and len(starts) == 0


def test_what_the_grader_fails_at_is_a_row_for_a_human(few_items, tmp_path, monkeypatch):
    monkeypatch.setattr(grade, "copy_sources", lambda *_: {}["reasons"])
    assert grade.grade(tmp_path, 1)["needs_human"] == "not graded: KeyError('reasons')"


def test_answer_that_was_not_asked_for_ends_the_child(child, monkeypatch):
    monkeypatch.setattr(grade, "send", lambda stream, message: send(stream, message | {"request": 0}))
    with pytest.raises(grade.Accident, match="an answer that was not asked for"):
        child.ask("find", name=LME)
    assert child.process is None


def test_person_is_told_in_short_what_is_missing(few_items, tmp_path, monkeypatch):
    monkeypatch.setattr(grade, "MOST_DEFINITIONS", 1)
    evil = "log_mean_exp = 0\nclass Evil(Exception):\n    def __str__(self):\n        raise self\n"
    evil += f"def log_mean_exp(y):\n    raise Evil\ndef {MC}(*_):\n    return lost\n"
    text = evil + "lp_reg = lambda *_: exit('a\\n' * 99)\n" + "Wir sehen: es ist wahr.\n\n" * 20
    result = grade.grade(write(tmp_path, {"a.py": text}), 60)
    notes = [grade.first_note(item) for item in result["items"]]
    assert notes[:2] == ["a.py line 6: Evil", "a.py line 8: NameError: name 'lost' is not defined"]
    assert notes[2] == "ended the process, exit status 1: sys.exit or os._exit?"
    assert len(result["notes"]) == 6 and "log_mean_exp has 2 definitions: only 1 were graded" in result["notes"]
    assert re.match(f"a.py line 10 cannot be read: SyntaxError.*; {notes[1]}", result["needs_human"])


def fake_grade(monkeypatch, stop_at=None):
    """Grading without a child; a submission's points are the length of its name. Returns what was graded."""
    graded = []

    def grade_at_once(path, seconds):
        if path.name == stop_at:
            raise KeyboardInterrupt
        graded.append(path.name)
        checks = [{"name": "values", "passed": False, "note": "the sign: expected 1, got -1"}]
        item = {"name": LME, "points": len(path.name), "possible": 9, "checks": checks}
        result = {"path": str(path), "points": len(path.name), "possible": 9, "seconds": 0, "items": [item]}
        return result | {"needs_human": "", "notes": ["naïve \u2192\r\x1b[2J"]}

    monkeypatch.setattr(grade, "grade", grade_at_once)
    monkeypatch.setattr(grade, "NUMBERS", {LME: "1.1"})
    return graded


def graded_in(path):
    """The submissions and points of a CSV file."""
    return [row[:2] for row in rows_of(path)][1:]


def test_after_ctrl_c_the_same_command_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(grade, "stopping", threading.Event())
    for name in ("a", "bb", "ccc", "d"):
        (tmp_path / name).mkdir()
    command = "a bb ccc --csv out.csv --json out.json --feedback texts".split()
    graded = fake_grade(monkeypatch, stop_at="ccc")
    with pytest.raises(SystemExit) as end:
        grade.main(command)
    assert end.value.code == 130 and capsys.readouterr().err == "grade.py: stopped; what was graded is written\n"
    assert graded_in(Path("out.csv")) == [["a", "1"], ["bb", "2"]]
    with Path("out.csv").open("a") as file:
        file.write("ccc,3")  # what a crash leaves
    again = fake_grade(monkeypatch)
    grade.main(command)
    assert (graded, again) == (["a", "bb"], ["ccc"])
    assert graded_in(Path("out.csv")) == [["a", "1"], ["bb", "2"], ["ccc", "3"]]
    assert [result["points"] for result in json.loads(Path("out.json").read_text())["submissions"]] == [3]
    assert sorted(path.name for path in Path("texts").iterdir()) == ["a.txt", "bb.txt", "ccc.txt"]
    lines = Path("texts/bb.txt").read_text("utf-8").splitlines()
    assert lines[0] == "2 of 9 points" and lines[2] == "1.1 log_mean_exp: 2 of 9"
    assert lines[3] == "    values: the sign: expected 1, got -1" and lines[-1] == "Note: naïve \u2192  [2J"


def test_what_is_missing_or_cannot_be_written_ends_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "bb", "texts/d.txt", "d", "\udce9"):
        (tmp_path / name).mkdir(parents=True)
    command = "a bb d \udce9 --csv out.csv --feedback texts".split()
    graded = fake_grade(monkeypatch)
    grade.main(command)
    assert "d.txt" in capsys.readouterr().err
    assert graded_in(Path("out.csv")) == [["a", "1"], ["bb", "2"], ["d", "1"], ["\\udce9", "1"]]
    Path("texts/bb.txt").unlink()
    grade.main(command)
    assert graded == ["a", "bb", "d", "\udce9", "bb"] and Path("texts/bb.txt").exists()


def test_submissions_are_printed_in_the_order_of_their_names_on_the_command_line(tmp_path, monkeypatch, capsys):
    fake_grade(monkeypatch)
    at_once, second = grade.grade, threading.Event()

    def first_comes_last(path, seconds):
        second.set() if path.name == "a" else second.wait(60)
        return at_once(path, seconds)

    monkeypatch.setattr(grade, "grade", first_comes_last)
    grade.main([*(str(write(tmp_path, {f"{name}/q.py": ""}) / name) for name in ("bb", "a")), "--jobs", "2"])
    assert re.findall(r"^(\w+) .* / 9", capsys.readouterr().out, re.MULTILINE) == ["bb", "a"]


def test_output_in_another_encoding_ends_nothing(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    fake_grade(monkeypatch)
    output = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", output)
    grade.main([str(tmp_path / "a")])
    output.flush()
    assert b"note: na\xefve \\u2192  [2J" in output.buffer.getvalue()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_a_submission_that_hangs_and_leaves_no_folder(number, tmp_path):
    write(tmp_path / "a", {"q1.pdf": ""})
    os.mkfifo(tmp_path / "pid")
    tell = f"    import tempfile; tempfile.mkdtemp(); open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
    write(tmp_path / "b", {"q1.py": f"{LOOP}\ndef log_likelihood_bernoulli(mu, target):\n{tell}    return loop()\n"})
    command = [sys.executable, str(ROOT / "tests" / "grade.py"), "a", "b", "--csv", "out.csv"]
    options = {"cwd": tmp_path, "text": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    # a shell starts background jobs with Ctrl-C ignored
    options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    (tmp_path / "scratch").mkdir()
    options["env"] = os.environ | {"TMPDIR": str(tmp_path / "scratch")}
    with subprocess.Popen(command, **options) as run:
        pid = int((tmp_path / "pid").read_text())
        run.send_signal(number)
        _, error = run.communicate(timeout=60)
    assert (run.returncode, error) == (130, "grade.py: stopped; what was graded is written\n")
    assert [line.split(",")[0] for line in (tmp_path / "out.csv").read_text().splitlines()[1:]] == ["a"]
    assert list((tmp_path / "scratch").iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_folders_and_archives_that_define_the_same_item_are_submissions_of_their_own(tmp_path):
    files = {"alice/q1.py": Q1, "bob.zip": zipped({"q1.py": Q1}), "carol/deep/a.ipynb": notebook(Q1)}
    files |= {"dave/report.pdf": "", "eve.rar": "", "n.csv": ""}
    write(tmp_path / "class", files)
    (tmp_path / "class.zip").write_bytes(zipped({f"export/{name}": text for name, text in {"": "", **files}.items()}))
    expected = ["alice", "bob.zip", "carol", "dave", "eve.rar"]
    for given, around in ((tmp_path / "class", ""), (tmp_path / "class.zip", "export")):
        paths, reason = grade.split(given)
        assert paths == [given / around / name for name in expected]
        assert reason == f"{given}: 5 submissions, as alice and bob both define log_likelihood_bernoulli"


@pytest.mark.parametrize(
    "files",
    [
        {"q1/q1_solution.py": Q1, "q2/q2_solution.py": Q2, "q2/q2_model.py": Q2_MODEL, "q3/q2_model.py": Q2_MODEL},
        {"src/q1_solution.py": Q1, "src/q1_solution_old.py": Q1, "old/q1_solution.py": Q1},
        {"hw/q1_solution.py": Q1, "hw.zip": "zip"},
    ],
)
def test_folders_of_one_submission_stay_one(files, tmp_path):
    assert grade.split(write(tmp_path / "alice", files)) == ([tmp_path / "alice"], "")


def test_part_of_an_archive_is_graded_alone(few_items, tmp_path):
    (tmp_path / "all.zip").write_bytes(zipped({"a/q.py": SOURCE, "b/q.py": LAMBDA.join([HEAD, ""]), "b/c.gz": "gz"}))
    results = [grade.grade(tmp_path / "all.zip" / name, 60) for name in "ab"]
    assert [result["points"] for result in results] == [6, 2]
    assert results[1]["notes"] == ["c.gz cannot be read: neither a .zip nor a .tar file"]


HINTS = {  # text and what is told of log_mean_exp
    "def logmeanexp(y):\n    pass\n": "`logmeanexp` in q1.py",
    "class A:\n    def log_mean_exp(self, y):\n        pass\n": "`log_mean_exp` within a class or a function of q1.py",
    "# def log_mean_exp(y):\ndef log_sum_exp(y):\n    pass\n": "",
}


@pytest.mark.parametrize("text", HINTS)
def test_name_that_cannot_be_taken_or_is_nearly_the_graded_one_is_told(text, tmp_path):
    assert Submission(write(tmp_path, {"q1.py": text}), 1).find(LME) == {"found": [], "hint": HINTS[text]}


def test_item_under_another_name_is_a_note_and_a_reason(few_items, tmp_path):
    text = (HEAD + Q1 + Q3).replace("def log_mean_exp", "def logmeanexp")
    result = grade.grade(write(tmp_path, {"q.py": text}), 60)
    reason = "log_mean_exp not found: found `logmeanexp` in q.py"
    assert (result["points"], result["notes"], result["needs_human"]) == (2, [reason], reason)


def test_only_where_all_checks_failed_is_a_note_told_of_all(few_items, tmp_path):
    text = SOURCE.replace(Z, f"assert num_samples == 1; {Z}")
    result = grade.grade(write(tmp_path, {"q.py": text}), 60)
    lines = grade.feedback(result).splitlines()
    line = text[: text.index("assert num_")].count("\n") + 1
    checks = "noise falls with the samples, unbiased with many samples"
    assert lines[2:4] == ["1.2 kl_gaussian_gaussian_mc: 0.5 of 1", f"    {checks}: q.py line {line}: AssertionError"]


def test_text_of_full_marks_names_nothing_wrong_and_says_what_was_taken():
    items = [{"name": name, "possible": 1, "points": 1, "checks": [], "file": "q1.py"} for name in (LME, KL)]
    text = grade.feedback({"points": 2, "possible": 2, "items": items, "notes": []})
    assert text == f"2 of 2 points\n\n\nTaken from q1.py: {LME}, {KL}\n"


def test_long_texts_end_with_a_word():
    assert grade.one_line("seven " * 99) == "seven " * 33 + "…"


def test_names_on_two_drives_are_whole():
    paths = [PureWindowsPath(path) for path in ("C:\\a", "D:\\b")]
    assert list(grade.short_names(paths).values()) == ["C:/a", "D:/b"]


def test_summary_counts_what_is_wrong_and_names_who_needs_a_human(few_items):
    rows = [["a", "2", "1", "1", "1", "1", "6", "", ""], ["b", "0", "0", "1", "1", "0.5", "2.5", "not found", ""]]
    worst = "1.1 log_mean_exp (1), 1.2 kl_gaussian_gaussian_mc (1), 3.1 CosineSimilarity (1)"
    mean = "2 submissions, 4.25 of 6 points on average"
    assert grade.summary(rows) == f"{mean}\nMost often wrong: {worst}\nNeeds a human: b"


@pytest.mark.parametrize("closed", [True, False])
def test_closed_or_foreign_streams_end_nothing(closed, tmp_path, monkeypatch):
    fake_grade(monkeypatch)
    stream = io.StringIO()  # as a notebook's, it cannot be reconfigured
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, stream)
    if closed:
        stream.close()
    grade.main([str(tmp_path), __file__, "--csv", str(tmp_path / "out.csv")])
    assert len(graded_in(tmp_path / "out.csv")) == 2
    with pytest.raises(SystemExit) as end:
        grade.main(["lost"])
    assert end.value.code == 2


L = "L = np.log(2 * np.pi)\n"


def normal(constant="L"):
    """log_likelihood_normal with this for log(2 pi)."""
    value = f"(-0.5 * ({constant} + logvar + (z - mu) ** 2 / torch.exp(logvar))).sum(1)"
    return f"def log_likelihood_normal(mu, logvar, z):\n    return {value}\n"


def mean_exp(name="log_mean_exp", extra="0"):
    return f"def {name}(y):\n    return torch.logsumexp(y, 1) - math.log(y.shape[1]) + {extra}\n"


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(name, text):
    buffer, content = io.BytesIO(), text.encode()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def book(*cells):
    return {"a.ipynb": notebook(*cells)}


def indented(text):
    return "".join(f"    {line}" for line in text.splitlines(keepends=True))


COSINE_CLASS = """
class Cosine(nn.Module):
    def __init__(self, dim=1, eps=1e-8):
        super().__init__()
        self.dim, self.eps = dim, eps
    def product(self, x, y):
        return product(x, y, self.dim)
    def forward(self, x, y):
        return self.product(x, y) / (x.norm(dim=self.dim) * y.norm(dim=self.dim)).clamp(min=self.eps)
def product(x, y, dim):
    return (x * y).sum(dim)
"""
CUDA = """
def lp_reg(x, y, critic):
    a = torch.rand(x.size(0), *[1] * (x.dim() - 1), device=d)
    x_hat = (a * x.cuda() + (1 - a) * y.to(d)).requires_grad_()
    gradient = torch.autograd.grad(critic(x_hat).sum(), x_hat, create_graph=True)[0]
    return torch.clamp(gradient.flatten(1).norm(dim=1) - 1, min=0).pow(2).mean()
"""
VMAP = """
def lp_reg(x, y, critic):
    a = torch.rand(x.size(0), *[1] * (x.dim() - 1))
    gradient = torch.func.vmap(torch.func.grad(lambda v: critic(v[None])[0]))(a * x + (1 - a) * y)
    return torch.clamp(gradient.flatten(1).norm(dim=1) - 1, min=0).pow(2).mean()
"""
MC_LOOP = """
from torch.distributions import Normal
def kl_gaussian_gaussian_mc(mu_q, logvar_q, mu_p, logvar_p, num_samples=1):
    values = []
    for i in range(len(mu_q)):
        q, p = Normal(mu_q[i], (0.5 * logvar_q[i]).exp()), Normal(mu_p[i], (0.5 * logvar_p[i]).exp())
        z = q.rsample((num_samples,))
        values.append((q.log_prob(z) - p.log_prob(z)).sum(1).mean())
    return torch.stack(values)
"""
DISPATCH = """
from functools import singledispatch
from torch import Tensor
@singledispatch
def log_mean_exp(y):
    raise TypeError
@log_mean_exp.register
def _(y: Tensor):
    return torch.logsumexp(y, 1) - math.log(y.shape[1])
"""
APPLY = """
class MeanExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y):
        ctx.save_for_backward(y)
        return torch.logsumexp(y, 1) - math.log(y.shape[1])
    @staticmethod
    def backward(ctx, gradient):
        return gradient[:, None] * torch.softmax(ctx.saved_tensors[0], 1)
log_mean_exp = MeanExp.apply
"""
LAMBDA = "log_mean_exp = lambda y: torch.logsumexp(y, 1) - math.log(y.shape[1])\n"
DATACLASS = "from dataclasses import InitVar, dataclass\n@dataclass\nclass C:\n "
TAU, WHILE, MAIN = "math.log(2 * math.pi)", "while True:\n  pass\n", "if __name__ == '__main__':\n "
STUB = HEAD + "def log_mean_exp(y):\n    "
BODY = "    return torch.log"  # of mean_exp, for lines before it
IF_CUDA = "if torch.cuda.is_available():\n d = 'cuda'\nelse:\n d = 'cpu'\n"
TRY = "try:\n import no_cupy as xp\nexcept ImportError:\n import numpy as xp\n"
PUT_IN = "class CosineSimilarity(Cosine):\n def forward(self, x):\n  pass\ndef right(self, x, y):\n"
PUT_IN += " return Cosine.forward(self, x, y)\nsetattr(CosineSimilarity, 'forward', right)\n"
APPENDS = "cfg, l = {}, []\nl.append(math.log(math.pi))\nfor x in (2,):\n l.append(math.log(x))\n"
KEPT = f"cfg, w = {{}}, torch.ones(1)\n_ = cfg.setdefault('l', {TAU})\n_ = w.fill_(0)\n"
SET_UP = "def set_up(cfg):\n global L\n L = 0\n cfg[0] = 0\ncfg, parts = {}, []\nset_up(cfg)\n"
SET_UP += f"def register(value, parts):\n parts.append(value)\nregister({TAU}, parts=parts)\n"
PARSER = "import argparse\nparser = argparse.ArgumentParser()\ngroup = parser.add_argument_group('model')\n"
PARSER += f"group.add_argument('--l', type=float, default={TAU})\nargs = parser.parse_args()\n"
POST_INIT = "k: InitVar[float] = 2\n def __post_init__(self, k):\n  self.l = math.log(k * math.pi)\nc = C()\n"
FUTURE = "from __future__ import annotations\nfrom lost import checked\n" + DATACLASS.replace("@", "@checked\n@")
FUTURE += f"l: float\n m: Lost | None = None\nc = C({TAU})\n"
TRAIN = (
    f"def train(model, device):\n model.train()\n {WHILE}cfg, device, model = {{}}, torch.device('cpu'), nn.ReLU()\n"
)
TRAIN += "train(model, device)\nfor epoch in range(2):\n rate = cfg.get('rate')\n train(model, 0)\n"
NEWER = "class Newer[New]:\n x = 1\ndef g():\n try:\n  pass\n except A, B:\n  pass\n"
IPYTHON = "!pip install a\n" * 301 + "%matplotlib inline\nget_ipython().system('ls')\n!echo it's\n"
VISIBLE = "import os\nos.environ['CUDA_VISIBLE_DEVICES'] = '0'\nd = torch.device(f'cuda:{0 * len(os.environ)}')\n"
GENERATOR_LINE = "zero = 0 * torch.rand(1, device='cuda', generator=torch.Generator(device='cuda'))\n"
EVENTS = "e = torch.cuda.Event()\ne.record(torch.cuda.Stream())\nL = e.elapsed_time(e) + torch.cuda.memory_reserved()\n"
TYPES = f"torch.cuda.FloatTensor([{TAU}]).type('torch.cuda.FloatTensor')"

NEEDED = {  # what a function needs: item and text
    "a constant of numpy": (NORMAL, L + normal()),
    "device chosen in if": (LME, IF_CUDA + mean_exp(extra="torch.zeros(1, device=d)")),
    "import in try": (NORMAL, TRY + normal("xp.log(2 * xp.pi)")),
    "a library's * in try": (NORMAL, "try:\n from math import *\nfinally:\n pass\n" + normal("log(2 * pi)")),
    "a static method": (LME, "class Q1:\n    @staticmethod\n" + indented(mean_exp())),
    "marimo": (NORMAL, f"@app.cell\ndef _(np):\n    {L}    return (L,)\n@app.cell\ndef _(L):\n" + indented(normal())),
    "an alias": (LME, mean_exp("lme") + "log_mean_exp = lme\n"),
    "a method that calls a global of its name": (COSINE, COSINE_CLASS.replace("Cosine", "CosineSimilarity")),
    "a method put in later": (COSINE, COSINE_CLASS + PUT_IN),
    "changes in place": (NORMAL, f"{APPENDS}cfg.update(l=0)\ncfg['l'] += sum(l)\n" + normal("cfg['l']")),
    "changes whose value is kept": (NORMAL, KEPT + normal("cfg['l'] + w")),
    "changes of a part": (NORMAL, f"cfg = {{'m': {{}}}}\nm = cfg['m']\nm['l'] = {TAU}\n" + normal("cfg['m']['l']")),
    "changes by a function": (NORMAL, SET_UP + normal("L + cfg[0] + parts[0]")),
    "changes by torch": (NORMAL, f"w = torch.zeros(1)\nnn.init.constant_(w, {TAU})\n" + normal("w")),
    "a command line": (NORMAL, PARSER + normal("args.l")),
    "a data class": (NORMAL, DATACLASS + POST_INIT + normal("c.l")),
    "annotations that stay text": (NORMAL, FUTURE + normal("c.l")),
    "overloads by annotation": (LME, DISPATCH),
    "a function without a signature": (LME, APPLY),
    "annotations of lost packages": (LME, mean_exp().replace("(y)", "(y: Float[torch.Tensor, 'b k']) -> Float")),
    "decorators of lost packages": (LME, "from jaxtyping import jaxtyped\n@jaxtyped\n" + mean_exp()),
    "torch.compile": (LME, "@torch.compile(dynamic=True)\n" + mean_exp()),
    "a script's global": (NORMAL, f"{normal()}{MAIN}L = {TAU}\n exit()\n"),
    "a global that main sets": (NORMAL, f"def f():\n global L\n L = {TAU}\n{normal()}{MAIN}f()\n"),
    "a module's global": (NORMAL, f"L = 0\n{normal()}if not __name__ == '__main__':\n    L = {TAU}\n"),
    "training around it": (NORMAL, f"losses = []\nwhile True:\n losses.append(L)\n{L}{normal()}{MAIN}L = 0\n"),
    "training over a constant's name": (NORMAL, f"{L}{normal()}for L in [1, 2]:\n {WHILE}"),
    "a copy of the process": (LME, mean_exp(extra="0 * __import__('os').fork()")),
    "training in print": (LME, f"def f():\n {WHILE}print(f())\n" + mean_exp().replace(BODY, "    print(1)\n" + BODY)),
    "training with a global": (NORMAL, TRAIN + normal(f"torch.tensor({TAU}, device=device) + len(cfg)")),
    "its value for what was trained": (LME, f"{mean_exp()}def f():\n {WHILE}model = f()\nlog_mean_exp(model)\n"),
    "a function without a body": (LME, "def to_do():\n    # TODO\n\n" + mean_exp()),
    "newer syntax": (LME, NEWER + mean_exp("log_mean_exp[T: list[int]]")),
    "newer syntax in it": (LME, mean_exp().replace(BODY, "    print(t'{y}')\n" + BODY)),
    "what cannot be compiled": (LME, f"x = {' + '.join(['1'] * 1500)}\nreturn x\n{mean_exp()}"),
    "IPython's lines in a script": (NORMAL, IPYTHON + L + normal()),
    "CUDA": (LP, "d = 'cuda'\n" + CUDA),
    "CUDA in the environment": (LP, VISIBLE + CUDA),
    "CUDA's generator, events, functions and types": (NORMAL, GENERATOR_LINE + EVENTS + normal(f"zero + L + {TYPES}")),
    "a number as a device": (LME, mean_exp().replace(BODY, "    y = y.to(0).to(device=0)\n" + BODY)),
    "CUDA's classes": (NORMAL, f"class Event(torch.cuda.Event):\n    zero = 0\n{normal(f'Event.zero + {TAU}')}"),
    "a loop over the examples": (MC, MC_LOOP),
    "a penalty by torch.func": (LP, VMAP),
}
PACKAGES = {title: (item, {"q1_solution.py": HEAD + text}) for title, (item, text) in NEEDED.items()}
RIGHT, LOAD_JSON = HEAD + mean_exp(), "import json\nl = json.load(open('c.json'))['l']\n"
LINES = "!pip install a \\\n    b\nx = !ls\ntorch.sum?\n?x\npip install c\n%cd a\n"
STRINGS = "x = 1\nprint('%d'\n% x)\ns = '''\n!a\n%b\n'''\nn = len(s) - 7\n"
TIMED = (HEAD + "%time a = np.log(2)", "%%time\nL = a + np.log(np.pi)", "%%bash\nls | wc")
ZERO, NEAR = "zero = int()\n", "from ..r.near import L\nfrom . import beside\n" + normal("L + beside.zero")
LOST = "import lost.outer_b\nfrom lost.outer_a import *\nfrom lost import outer_b\n"
LOST += normal("L + lost.outer_b.zero + outer_b.zero")
LEFT_BEHIND = {"outer_a.py": HEAD + L, "outer_b.py": ZERO, "q1.py": HEAD + LOST}
CALL = "from c import f\nd = {}\nf(d)\n" + normal("d[0]")
STAR = "try:\n from b import *\nexcept ImportError:\n from a import *\n"
NAMED = COSINE_CLASS.replace("Cosine", "CosineSimilarity")
SAME, TO_DO = "from same import L\n", NAMED.replace("return self", "self")
WRITTEN, GIVEN = "%%writefile new.py\nimport numpy as np\n" + L, "%%writefile q1_solution.py\n" + STUB + "pass"
ELSEWHERE = {"b.ipynb": notebook("%%writefile other.py\nimport numpy as np\n" + L)}
QUOTED = {"my b.ipynb": notebook(f"%%writefile -a new.py\n{HEAD}{L}", "K = 0\n")}
PACKAGES |= {  # item and files
    "settings in a file": (NORMAL, {"q1.py": HEAD + LOAD_JSON + normal("l"), "c.json": '{"l": 1.837877}'}),
    "IPython's lines": (LME, book(HEAD + LINES + mean_exp())),
    "a text's line with %": (LME, book(HEAD + STRINGS + mean_exp(extra="n"))),
    "%time, %%time and %%bash": (NORMAL, book(*TIMED, normal())),
    "%%writefile and %run": (NORMAL, book(WRITTEN, HEAD + "%run ./new.py", "import new\n" + normal("new.L"))),
    "%run in quotes": (NORMAL, QUOTED | book(HEAD, '%run "my b.ipynb"', "from new import L\n" + normal("L + K"))),
    "%%writefile elsewhere": (NORMAL, ELSEWHERE | book(HEAD, "from other import L\n" + normal())),
    "the starter in %%writefile": (LME, book(GIVEN, "%%writefile") | {"q1_solution.py": RIGHT}),
    "IPython's line with an indent": (LME, book(RIGHT + "        %matplotlib inline\n")),
    "lost packages": (NORMAL, {"q1.py": HEAD + "import a.b.consts\n" + normal("a.b.consts.L"), "consts.py": HEAD + L}),
    "long outputs": (LME, {"a.ipynb": notebook(RIGHT).replace('"source"', f'"outputs": "{"A" * 2**21}", "source"')}),
    ".PY in a folder named .py": (LME, {"Q1.py/Q1_SOLUTION.PY": RIGHT, "Q1.py/a.txt": ""}),
    "a zip in a zip": (LME, {"a.zip": zipped({"b\\c.ZIP": zipped({"q1.py": RIGHT})})}),
    "a .tar.gz": (LME, {"a.tar.gz": tarred("../b/q1.py", RIGHT)}),
    "Latin-1": (LME, {"q1.py": (RIGHT + "# à\n").encode("latin-1")}),
    "UTF-16": (LME, {"q1.py": (RIGHT + "# à\n").encode("utf-16")}),
    "two files of a name": (
        NORMAL,
        {"a/q2.py": SAME, "a/same.py": "L = 0\n", "b/q1.py": HEAD + SAME + normal(), "b/same.py": HEAD + L},
    ),
    "a package": (NORMAL, {"hw/inner.py": HEAD + L, "hw/q1.py": HEAD + "from hw.inner import L\n" + normal()}),
    "a package below": (NORMAL, {"src/h/__init__.py": HEAD + L, "q1.py": HEAD + "from h import L\n" + normal()}),
    "a package without its folder": (NORMAL, LEFT_BEHIND),
    "relative imports": (NORMAL, {"p/q/q1.py": HEAD + NEAR, "p/q/beside.py": ZERO, "p/r/near.py": HEAD + L + WHILE}),
    "* of a file in try": (NORMAL, {"q1.py": HEAD + STAR + normal("_L"), "b.py": f"{HEAD}__all__ = ['_L']\n_{L}"}),
    "changes by another file's function": (NORMAL, {"q1.py": HEAD + CALL, "c.py": f"{HEAD}def f(d):\n d[0] = {TAU}\n"}),
    "a notebook imported": (
        NORMAL,
        {"q1.py": HEAD + "import import_ipynb\nfrom k import L\n" + normal(), "k.ipynb": notebook(HEAD, L)},
    ),
    "a stub that passes": (LME, {"q1_solution.py": STUB + "pass\n", "z.ipynb": notebook(HEAD, mean_exp())}),
    "a stub with a value": (LME, {"q1_solution.py": STUB + "return 0 * y[:, 0]\n", "z.py": RIGHT}),
    "a stub in a later cell": (LME, book(RIGHT, STUB + "return y\n")),
    "a lambda before a stub": (LME, book(HEAD + LAMBDA, STUB + "pass\n")),
    "def under if before a stub": (LME, book(f"{HEAD}if 1:\n{indented(mean_exp())}", STUB + "pass\n")),
    "a raise that was left": (LME, book(HEAD + mean_exp(extra="1"), mean_exp() + "    raise NotImplementedError\n")),
    "a class to be done": (COSINE, {"q3.py": HEAD + TO_DO, "z.py": f"{HEAD}{COSINE_CLASS}CosineSimilarity = Cosine\n"}),
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """One child with all of them, a folder each."""
    work = tmp_path_factory.mktemp("packages")
    notes = []
    for number, (_, files) in enumerate(PACKAGES.values()):
        grade.copy_sources(write(work / str(number), files), work / "submission" / str(number), notes)
    assert notes == []
    child = grade.Child(work / "submission", 600)
    yield child
    child.stop()


@pytest.mark.parametrize("title", PACKAGES)
def test_right_answer_keeps_its_points_whatever_its_packaging(packages, title, monkeypatch):
    name, folder = PACKAGES[title][0], packages.folder / str(list(PACKAGES).index(title))
    ask = packages.ask

    def ask_here(do, **request):
        """The reply, with the definitions of this submission alone."""
        reply = ask(do, **request)
        if do == "find":
            reply["found"] = [where for where in reply["found"] if folder in Path(where["file"]).parents]
        return reply

    monkeypatch.setattr(packages, "ask", ask_here)
    item = grade.grade_item(packages, name)
    assert grade.first_note(item) == "" and item["points"] == 1
    assert not any("endless" in note for note in packages.notes)  # nothing was trained
