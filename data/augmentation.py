"""Random views in batches, on the images' device: SimSiam's `augment`, and `distort` for problem 2's classifier.

`augment` draws what these transforms of torchvision draw, an image at a time:

    Compose([
        RandomResizedCrop(32, scale=(0.08, 1.0)),
        RandomHorizontalFlip(0.5),
        RandomApply([ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
        RandomGrayscale(0.2),
        ToTensor(),
        Normalize(MEAN, STD),
    ])

On PIL images each jitter cuts the values down to whole numbers, here it does not: the channels' means are 0.02 higher,
the loss of the same weights is equal (0.0004 ± 0.0027).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # the assignment's, for every data set


def layout(images: Tensor) -> torch.memory_format:
    """The memory format of a batch of images."""
    last = images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def crop_boxes(n: int, size: int, scale: tuple[float, float], device: torch.device) -> Tensor:
    """Boxes (n, 4): top, left, height, width, distributed as torchvision's RandomResizedCrop draws them.

    The first of ten tries that fits is taken, else the whole image.
    """
    area = size * size * torch.empty(n, 10, device=device).uniform_(*scale)
    ratio = torch.empty(n, 10, device=device).uniform_(math.log(3 / 4), math.log(4 / 3)).exp()
    height, width = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
    fits = (height >= 1) & (height <= size) & (width >= 1) & (width <= size)
    first = fits.int().argmax(1, keepdim=True)
    whole = ~fits.any(1, keepdim=True)
    height, width = (x.gather(1, first).masked_fill(whole, size) for x in (height, width))
    top, left = ((torch.rand(n, 1, device=device) * (size - x + 1)).floor() for x in (height, width))
    return torch.cat([top, left, height, width], 1)


def interpolation_weights(start: Tensor, length: Tensor, flip: Tensor, size: int) -> Tensor:
    """Bilinear weights (n, size, size) that stretch `length` pixels from `start` along one axis to `size` pixels."""
    pixels = torch.arange(size, device=start.device)
    position = (pixels + 0.5) * length[:, None] / size - 0.5
    position = start[:, None] + position.clamp(min=0).minimum(length[:, None] - 1)
    position = torch.where(flip[:, None], position.flip(1), position)
    return (1 - (position[:, :, None] - pixels).abs()).clamp(min=0)


def crop_flip(images: Tensor, boxes: Tensor, flip: Tensor) -> Tensor:
    """Stretch each image's box to the image's size, bilinearly, and mirror it where `flip`: (n, 3, S, S) floats.

    A box is never larger than the image, so that no smoothing is due. Rows and columns are two matrix products.
    """
    top, left, height, width = boxes.unbind(1)
    rows = interpolation_weights(top, height, torch.zeros_like(flip), images.shape[2])
    columns = interpolation_weights(left, width, flip, images.shape[3])
    return rows[:, None] @ images @ columns[:, None].transpose(2, 3)


def grey(images: Tensor) -> Tensor:
    """Luma (n, 1, H, W) with torchvision's weights."""
    return 0.2989 * images[:, 0:1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:3]


def blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """factor * images + (1 - factor) * other in [0, 1], a factor (n,) for each image."""
    return torch.lerp(other, images, factor.view(-1, 1, 1, 1)).clamp(0, 1)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor.view(-1, 1, 1, 1)).clamp(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    return blend(images, grey(images).mean((1, 2, 3), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    return blend(images, grey(images), factor)


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by `shift` (n,) turns: to HSV and back; value and chroma stay."""
    red, green, blue = images.unbind(1)
    value, chroma = images.amax(1), images.amax(1) - images.amin(1)
    safe = chroma.clamp(min=1e-8)
    angle = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    angle = angle + 6 * shift.view(-1, 1, 1)
    k = torch.stack([angle + 5, angle + 3, angle + 1], 1) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def augment(images: Tensor) -> Tensor:
    """One random view of each image: (n, 3, 32, 32) uint8 to normalised floats of the same shape.

    The assignment's transforms, with parameters of each image's own; only the order of the four jitters is shared.
    """
    n, device = len(images), images.device

    def chance(p: float) -> Tensor:
        return torch.rand(n, device=device) < p

    views = crop_flip(images.float() / 255, crop_boxes(n, images.shape[2], (0.08, 1.0), device), chance(0.5))
    jittered = chance(0.8)
    jitters = ((brightness, 0.4, 1.0), (contrast, 0.4, 1.0), (saturation, 0.4, 1.0), (hue, 0.1, 0.0))
    for index in torch.randperm(4).tolist():
        jitter, strength, neutral = jitters[index]
        factor = neutral + torch.empty(n, device=device).uniform_(-strength, strength)
        views = jitter(views, torch.where(jittered, factor, neutral))
    views = torch.where(chance(0.2).view(-1, 1, 1, 1), grey(views), views)
    return normalise(views.contiguous(memory_format=layout(images)))


def normalise(images: Tensor) -> Tensor:
    """Subtract MEAN and divide by STD, per channel; images (n, 3, H, W) in [0, 1]."""
    channels = [(images[:, i] - MEAN[i]) / STD[i] for i in range(3)]  # no tensor of constants to copy to the device
    return torch.stack(channels, 1).contiguous(memory_format=layout(images))


def scale(images: Tensor) -> Tensor:
    """Map uint8 to floats in [-1, 1]."""
    return images.float() / 127.5 - 1


def distort(images: Tensor, rotation: float, scale: float, shift: float, contrast: float, inversion: float) -> Tensor:
    """A random view of each of the images (N, 3, 32, 32) in [-1, 1].

    Turned by up to `rotation` degrees, scaled by a factor from 1 / `scale` to `scale`, shifted by up to `shift` pixels,
    multiplied with a factor of 1 ± `contrast`, and inverted with probability `inversion`.
    """

    def uniform(size: float) -> Tensor:
        return torch.empty(len(images), device=images.device).uniform_(-size, size)

    angle, zoom = torch.deg2rad(uniform(rotation)), scale ** uniform(1)
    cos, sin, x, y = zoom * angle.cos(), zoom * angle.sin(), uniform(shift / 16), uniform(shift / 16)
    maps = torch.stack([cos, -sin, x, sin, cos, y], 1).view(-1, 2, 3)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    views = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    factor = 1 + uniform(contrast)
    inverted = torch.rand(len(images), device=images.device) < inversion
    factor = torch.where(inverted, -factor, factor)
    return (factor[:, None, None, None] * views).clamp(-1, 1)
