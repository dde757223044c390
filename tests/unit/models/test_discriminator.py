import torch

from tomogan_bluesky.models.discriminator import PatchDiscriminator, receptive_field


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
        other[:, k] += 1
        assert not torch.allclose(discriminator(other, candidate), before)
