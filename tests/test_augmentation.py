"""The batched views against torchvision's, and the distortions of problem 2's classifier."""

import math

import pytest
import torch
import torchvision.transforms.v2.functional as tv
from torchvision.transforms.v2 import RandomResizedCrop

from data import augmentation


@pytest.mark.parametrize("flip", [False, True])
def test_crop_and_flip_equal_torchvision(images, flip):
    torch.manual_seed(0)
    boxes = augmentation.crop_boxes(len(images), 32, (0.08, 1.0), torch.device("cpu"))
    boxes[:3] = torch.tensor([[0, 0, 32, 32], [31, 31, 1, 1], [3, 5, 1, 27]])
    ours = augmentation.crop_flip(images, boxes, torch.full((len(images),), flip))
    for image, box, result in zip(images, boxes.int().tolist(), ours, strict=True):
        expected = tv.resized_crop(image, *box, [32, 32], antialias=True)
        torch.testing.assert_close(result, expected.flip(-1) if flip else expected, rtol=0, atol=1e-5)


JITTERS = [("brightness", 1, 0.4), ("contrast", 1, 0.4), ("saturation", 1, 0.4), ("hue", 0, 0.1)]  # neutral, strength


@pytest.mark.parametrize(("name", "neutral", "strength"), JITTERS)
def test_jitters_equal_torchvision(images, name, neutral, strength):
    factors = torch.linspace(neutral - strength, neutral + strength, len(images))
    ours = getattr(augmentation, name)(images, factors)
    for image, factor, result in zip(images, factors.tolist(), ours, strict=True):
        torch.testing.assert_close(result, getattr(tv, f"adjust_{name}")(image, factor), rtol=0, atol=1e-5)


def test_hue_of_saturated_and_grey_colours_equals_torchvision():
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1.0])] * 3).T.reshape(1, 3, 1, 27).repeat(1, 1, 2, 1)
    for shift in (-0.5, -0.1, 0.0, 0.03, 0.5):
        ours = augmentation.hue(corners, torch.tensor([shift]))
        torch.testing.assert_close(ours, tv.adjust_hue(corners, shift), rtol=0, atol=1e-5)


def test_crop_boxes_are_distributed_as_torchvisions():
    torch.manual_seed(0)
    ours = augmentation.crop_boxes(20_000, 32, (0.08, 1.0), torch.device("cpu"))
    image, transform = torch.zeros(3, 32, 32), RandomResizedCrop(32, scale=(0.08, 1.0))
    drawn = [transform.make_params([image]) for _ in range(5000)]
    theirs = torch.tensor([[box[key] for key in ("top", "left", "height", "width")] for box in drawn]).float()
    assert (ours[:, 0] + ours[:, 2]).max() <= 32 and (ours[:, 1] + ours[:, 3]).max() <= 32 and ours.min() >= 0
    for column in range(4):
        error = 5 * theirs[:, column].std() / math.sqrt(5000)
        assert (ours[:, column].mean() - theirs[:, column].mean()).abs() < error
        quantiles = torch.tensor([0.1, 0.5, 0.9])
        gap = (ours[:, column].quantile(quantiles) - theirs[:, column].quantile(quantiles)).abs()
        assert gap.max() <= 1


def test_augmentation_draws_each_image_its_own_parameters(monkeypatch):
    seen = {}

    def record(name):
        original = getattr(augmentation, name)

        def wrapped(images, *parameters):
            seen[name] = parameters
            return original(images, *parameters)

        monkeypatch.setattr(augmentation, name, wrapped)

    for name in ("crop_flip", "brightness", "contrast", "saturation", "hue"):
        record(name)
    torch.manual_seed(0)
    n = 4000
    views = augmentation.augment(torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8))
    boxes, flip = seen["crop_flip"]
    area = boxes[:, 2] * boxes[:, 3] / 32**2
    assert (area < 0.2).float().mean().item() == pytest.approx((0.2 - 0.08) / 0.92, abs=0.03)
    assert boxes.unique(dim=0).shape[0] > n / 2 and flip.float().mean().item() == pytest.approx(0.5, abs=0.04)
    for name, neutral, strength in JITTERS:
        (factor,) = seen[name]
        assert torch.equal(factor != neutral, seen["hue"][0] != 0)  # one decision for all four
        changed = factor[factor != neutral] - neutral
        assert len(changed) / n == pytest.approx(0.8, abs=0.03)
        assert changed.abs().max() <= strength + 1e-6
        assert changed.std().item() == pytest.approx(strength / math.sqrt(3), rel=0.05)  # uniform
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)))
    spread = (views * std + mean).std(1).amax((1, 2))
    assert (spread < 1e-5).float().mean().item() == pytest.approx(0.2, abs=0.03)  # grey
    assert (views * std + mean).min() > -1e-6 and (views * std + mean).max() < 1 + 1e-6


def test_jitters_come_in_a_random_order(monkeypatch):
    orders, order = set(), []
    for name in ("brightness", "contrast", "saturation", "hue"):
        monkeypatch.setattr(augmentation, name, lambda images, _, name=name: order.append(name) or images)
    torch.manual_seed(0)
    for _ in range(300):
        augmentation.augment(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
        orders.add(tuple(order))
        order.clear()
    assert len(orders) == 24


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_views_keep_the_memory_format_of_their_images(images, layout):
    pixels = (images * 255).byte().contiguous(memory_format=layout)
    torch.manual_seed(0)
    views = augmentation.augment(pixels)
    assert views.is_contiguous(memory_format=layout)
    torch.manual_seed(0)
    torch.testing.assert_close(views, augmentation.augment((images * 255).byte()))


# --- The classifier's distortions -------------------------------------------------------------------------------------

STILL = {"rotation": 0, "scale": 1, "shift": 0, "contrast": 0, "inversion": 0}


def distort(images, **changes):
    return augmentation.distort(images * 2 - 1, **(STILL | changes)) / 2 + 0.5


def test_no_distortion_changes_nothing(images):
    torch.testing.assert_close(distort(images), images, rtol=0, atol=1e-5)


def test_inversion_turns_the_sign(images):
    torch.testing.assert_close(distort(images, inversion=1), 1 - images, rtol=0, atol=1e-5)
    inverted = (distort(images, inversion=0.3) - images).abs().amax((1, 2, 3)) > 0.01
    assert inverted.float().mean().item() == pytest.approx(0.3, abs=0.12)


def test_contrast_multiplies_each_image_with_a_factor_of_its_own(images):
    grey = torch.full((4000, 3, 32, 32), 0.6)
    factors = (distort(grey, contrast=0.5)[:, 0, 16, 16] - 0.5) / 0.1
    assert factors.min() >= 0.5 - 1e-5 and factors.max() <= 1.5 + 1e-5
    assert factors.std().item() == pytest.approx(0.5 / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize(
    ("changes", "low", "high"),
    [({"rotation": 90}, 12, 12), ({"scale": 1.5}, 8, 18), ({"shift": 3}, 9, 15)],
)
def test_a_dot_moves_as_far_as_it_may(changes, low, high):
    """A dot 12 pixels right of the centre turns on a circle, moves along the ray, or with the image."""
    dot = torch.zeros(500, 3, 32, 32)
    dot[:, :, 15:17, 27:29] = 1
    views = distort(dot, **changes)[:, 0]
    mass, place = views.sum((1, 2)), torch.arange(32) - 15.5
    x, y = (views.sum(1) * place).sum(1) / mass, (views.sum(2) * place).sum(1) / mass
    seen = mass > 1  # else it has left the image
    distance = (x**2 + y**2).sqrt()[seen]
    assert seen.float().mean() > 0.5 and low - 1 < distance.min() and distance.max() < high + 1
    assert x[seen].std() > 0.5 and (y[seen].std() > 0.5) == ("scale" not in changes)
