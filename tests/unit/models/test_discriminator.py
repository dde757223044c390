import math

import pytest
import torch
from torch.nn import functional as F

from tomogan_bluesky.models.discriminator import PatchDiscriminator, receptive_field
from tomogan_bluesky.models.losses import discriminator_loss


def test_a_patch_is_70_pixels_wide():
    assert receptive_field(PatchDiscriminator(base=4)) == 70


def test_a_logit_sees_its_patch_and_nothing_else():
    """By gradient: exactly 70 x 70 pixels of both images move one logit."""
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(base=4).double().eval()
    images = [torch.randn(1, 1, 160, 160, dtype=torch.float64, requires_grad=True) for _ in "nc"]
    logits = discriminator(*images)
    assert logits.shape == (1, 1, 18, 18)
    logits[0, 0, 9, 9].backward()
    for image in images:
        seen = image.grad[0, 0] != 0
        assert seen.any(0).sum() == seen.any(1).sum() == 70
        assert seen.sum() > 0.9 * 70**2


def test_it_is_conditional():
    """The same candidate is judged in the light of the noisy slices, all of them."""
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(depth=3, base=4).eval()
    noisy, candidate = torch.randn(2, 3, 48, 48), torch.randn(2, 1, 48, 48)
    before = discriminator(noisy, candidate)
    assert before.shape == (2, 1, 4, 4)
    for k in range(3):
        other = noisy.clone()
        other[:, k] = torch.randn(2, 48, 48)
        assert not torch.allclose(discriminator(other, candidate), before)


@pytest.mark.parametrize("noise", [0.2, 1.0])
def test_it_learns_to_tell_a_smooth_slice_from_a_textured_one(noise):
    """By a texture of a few hundredths, under matter whose attenuation varies twentyfold more, and
    beside slices whose noise does."""
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(base=8)
    optimiser = torch.optim.Adam(discriminator.parameters(), 2e-3, betas=(0.5, 0.999))
    losses = []
    for _ in range(80):
        matter = F.interpolate(2 * torch.rand(4, 1, 4, 4), size=(48, 48), mode="bilinear")
        target = matter + 0.05 * torch.randn(4, 1, 48, 48)
        noisy = target + noise * torch.randn(4, 1, 48, 48)
        smooth = F.avg_pool2d(target, 3, 1, 1, count_include_pad=False)
        logits = discriminator(torch.cat([noisy, noisy]), torch.cat([target, smooth]))
        loss = discriminator_loss("bce", *logits.chunk(2))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) / 10 < 0.95 * math.log(2)
