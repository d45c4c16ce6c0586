"""Synthetic digits, made on the spot from the fonts that come with matplotlib."""

from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt
from torch import Tensor

FONTS = ["DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic"]
FONTS += ["STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmb10", "cmr10", "cmss10", "cmtt10"]


def glyph_distances() -> Tensor:
    """Signed distances to the digits' outlines, positive inside, in units of their height: (fonts, 10, 64, 64)."""
    fields = []
    for name in FONTS:
        font = ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")), 64)
        for digit in "0123456789":
            page = Image.new("L", (128, 128))
            ImageDraw.Draw(page).text((64, 64), digit, fill=255, font=font, anchor="mm")
            glyph = page.crop(page.getbbox())
            glyph = glyph.resize((round(glyph.width * 40 / glyph.height), 40), Image.Resampling.BILINEAR)
            cell = Image.new("L", (64, 64))
            cell.paste(glyph, ((64 - glyph.width) // 2, 12))
            inside = np.asarray(cell) > 127
            fields.append((distance_transform_edt(inside) - distance_transform_edt(~inside)) / 40)
    return torch.tensor(np.stack(fields), dtype=torch.float32).view(len(FONTS), 10, 64, 64)


def synthetic_digits(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw `num` labelled digits, the same for the same seed: images num x 28 x 28 and labels, both uint8.

    Each is a glyph from a random font under a random affine map and a smooth warp, white ink on black, like MNIST.
    """
    generator = torch.Generator().manual_seed(seed)
    distances = glyph_distances()
    axis = (torch.arange(28) + 0.5) * 2 / 28 - 1
    pixels = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    def draw(labels: Tensor) -> Tensor:
        n = len(labels)
        font = torch.randint(len(distances), (n,), generator=generator)
        angle, shear, height = uniform(-0.2, 0.2, n), uniform(-0.35, 0.25, n), uniform(0.68, 0.76, n)
        width = height * uniform(0.8, 1.25, n)
        cos, sin = angle.cos(), angle.sin()
        to_glyph = torch.stack([cos - shear * sin, sin + shear * cos, -sin, cos], -1).view(n, 2, 2)
        to_glyph = to_glyph * (40 / 64) / torch.stack([width, height], -1)[:, :, None]
        coarse = 0.09 * torch.randn(n, 2, 4, 4, generator=generator)
        warp = F.interpolate(coarse, size=(28, 28), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
        points = torch.einsum("nij,nhwj->nhwi", to_glyph, pixels + warp - uniform(-0.08, 0.08, n, 1, 1, 2))
        glyphs = distances[font, labels][:, None]
        outline = F.grid_sample(glyphs, points, padding_mode="border", align_corners=False)
        return torch.sigmoid((outline + uniform(0.0, 0.05, n, 1, 1, 1)) / 0.016)[:, 0]

    labels = torch.randint(10, (num,), generator=generator)
    images = torch.cat([(draw(chunk) * 255).round().byte() for chunk in labels.split(1000)])
    return images.numpy(), labels.byte().numpy()


def synthetic_data(num_train: int, num_test: int) -> dict:
    """Return synthetic digits as a data set, as `utils.load_data` does."""
    train, test = synthetic_digits(num_train, 0), synthetic_digits(num_test, 1)
    data = dict(zip(("train_images", "train_labels", "test_images", "test_labels"), train + test, strict=True))
    return data | {"source": "synthetic digits (fonts of matplotlib, warped)"}
