"""Fixtures of several test files."""

import numpy as np
import pytest
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image


@pytest.fixture(scope="module")
def images():
    """128 pieces of the photograph that comes with matplotlib, (128, 3, 32, 32) floats in [0, 1]."""
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as photo:
        pixels = torch.tensor(np.asarray(photo.resize((512, 256)))).float() / 255
    return pixels.view(8, 32, 16, 32, 3).permute(0, 2, 4, 1, 3).reshape(128, 3, 32, 32)
