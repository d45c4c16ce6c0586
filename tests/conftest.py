"""Fixtures of several test files."""

import shutil
from functools import cache
from importlib import import_module

import numpy as np
import pytest
import torch
from PIL import Image

import utils
from data.synthetic import synthetic_data
from tests import helpers


@pytest.fixture(scope="module")
def images():
    """128 pieces of the photograph that comes with matplotlib, (128, 3, 32, 32) floats in [0, 1]."""
    with Image.open(utils.matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as photo:
        pixels = torch.tensor(np.asarray(photo.resize((512, 256)))).float() / 255
    return pixels.view(8, 32, 16, 32, 3).permute(0, 2, 4, 1, 3).reshape(128, 3, 32, 32)


@pytest.fixture(scope="session")
def run_of(tmp_path_factory):
    """run_of(script) is the tiny run of a script, made once; its folder is not to be changed."""

    @cache
    def run(script):
        module, folder, out = import_module(script), tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp(script)
        flags = [*helpers.FLAGS[script].split(), "--data-dir", str(folder), "--device", "cpu"]
        data = synthetic_data(*helpers.IMAGES[script]) | {"source": "tiny digits"}
        np.savez(folder / f"{flags[1]}.npz", **data)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in helpers.CHANGES[script].items():
                patch.setattr(module, name, value)
            module.main([*flags, "--out", str(out)])
        return helpers.Run(module, flags, out)

    return run


@pytest.fixture(scope="module")
def arguments(request, run_of):
    """The flags of the tiny run of the script that a test file is about."""
    return run_of(request.path.stem.removeprefix("test_")).flags


@pytest.fixture(scope="module")
def finished(request, run_of):
    """The folder of that run."""
    return run_of(request.path.stem.removeprefix("test_")).out


@pytest.fixture
def copied(run_of, tmp_path, monkeypatch):
    """copied(script) is the tiny run of a script in a copy of its folder, which its flags name."""

    def copy(script):
        run, out = run_of(script), tmp_path / "out"
        for name, value in helpers.CHANGES[script].items():
            monkeypatch.setattr(run.module, name, value)
        shutil.copytree(run.out, out)
        return run._replace(out=out, flags=[*run.flags, "--out", str(out)])

    return copy


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn from now on, by the names of their files, in place of the files."""
    figures = {}
    monkeypatch.setattr(utils, "save_figure", lambda figure, path: figures.update({path.stem: figure}))
    return figures
