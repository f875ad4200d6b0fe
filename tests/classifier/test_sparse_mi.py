"""Sparse model inversion: dropping, moving and counting patches by hand, and attention that decides which patches stay."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from implementations.classifier import patches, sparse_mi
from implementations.classifier.networks import SmallMLP, SmallViT
from implementations.common.training import seeded_weights
from implementations.threat_model import Knowledge, classifier_target

CPU = "cpu"


def random(seed=0):
    return torch.Generator(CPU).manual_seed(seed)


def transformer(**changes):
    with seeded_weights(3):
        return SmallViT(3, 16, 2, **{"patch": 4, "width": 16, "depth": 2, "heads": 2, **changes}).eval()


def rebuilt(model, **changes):
    oracle = classifier_target(model, CPU).grant("white-box")
    config = sparse_mi.SparseMiConfig(
        **{"steps": 6, "moments": (1 / 3, 2 / 3), "shares": (0.5, 0.25), "per_class": 2, **changes}
    )
    return sparse_mi.attack(oracle, Knowledge(num_classes=2, image_shape=(3, 16, 16)), config), oracle


def test_narrowed_by_hand():
    kept, worth = torch.tensor([[7, 2, 5, 9]], device=CPU), torch.tensor([[0.1, 0.4, 0.2, 0.3]], device=CPU)
    assert sparse_mi.narrowed(kept, worth, 0.3).tolist() == [[2, 9]]  # floor(0.7 * 4) = 2
    assert sparse_mi.narrowed(kept, worth, 0.0).tolist() == [[2, 9, 5, 7]]


def test_official_shares_leave_a_quarter():
    kept = torch.arange(196, device=CPU)[None]
    for share in (0.3,) * 4:
        kept = sparse_mi.narrowed(kept, torch.rand(kept.shape, generator=random(), device=CPU), share)
    assert kept.shape[1] == 46  # 196, 137, 95, 66, 46


@pytest.mark.parametrize(("down", "right", "mirrored"), [(4, -8, False), (-4, 4, True), (0, 0, True), (8, 0, False)])
def test_kept_patches_move_with_the_picture(down, right, mirrored):
    kept = torch.tensor([[0, 3, 6], [15, 9, 1]], device=CPU)
    picture = patches.patch_mask(kept, 4, 4).roll((down, right), dims=(2, 3))
    picture = picture.flip(3) if mirrored else picture
    moved = sparse_mi.moved_patches(kept, down, right, mirrored, 4, 4)
    assert torch.equal(patches.patch_mask(moved, 4, 4), picture)


def test_a_part_of_a_patch_is_rounded():
    kept = torch.tensor([[5]], device=CPU)
    assert sparse_mi.moved_patches(kept, 1, -1, False, 4, 4).item() == 5
    assert sparse_mi.moved_patches(kept, 2, -3, False, 4, 4).item() == 8


def test_multiply_adds_agree_with_a_counter():
    model = transformer()
    tokens = torch.zeros(1, 9, 16, device=CPU)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for block in model.blocks:
            tokens = block(tokens)
    assert counter.get_total_flops() == 2 * sparse_mi.multiply_adds(9, 16, 2)


def test_only_kept_patches_reach_the_target():
    model = transformer()
    x = torch.rand(2, 3, 16, 16, generator=random(), device=CPU, requires_grad=True)
    kept = torch.tensor([[0, 5, 6], [1, 2, 15]], device=CPU)
    with patches.watched_patches(model) as watch:
        everything = model(x)
        watch.kept = torch.arange(16, device=CPU).expand(2, -1)
        torch.testing.assert_close(model(x), everything)
        watch.kept = kept
        logits = model(x)
        assert watch.tokens.shape == (2, 4, 16)
        (gradient,) = torch.autograd.grad(logits.square().sum(), x)
    mask = patches.patch_mask(kept, 4, 4)
    assert (gradient * (1 - mask) == 0).all()
    assert (gradient * mask).abs().sum() > 0
    torch.testing.assert_close(model(x), everything)


def test_other_networks_are_refused():
    with pytest.raises(ValueError, match="vision transformer"), patches.watched_patches(SmallMLP(3, 16, 2)):
        pass


def test_visible_patches_are_those_not_black():
    kept = torch.tensor([[3, 8, 12], [0, 1, 2]], device=CPU)
    images = patches.patch_mask(kept, 4, 4).expand(-1, 3, -1, -1) * 0.5
    assert patches.visible_patches(images, 4).sort(dim=1).values.tolist() == kept.tolist()


def test_class_attention_is_a_share():
    tokens = torch.randn(2, 6, 16, generator=random(), device=CPU)
    attention = patches.class_attention(transformer(), tokens)
    assert attention.shape == (2, 5)
    assert (attention > 0).all()
    assert (attention.sum(dim=1) < 1).all()


def test_effort_is_counted_step_by_step():
    found, oracle = rebuilt(transformer())
    assert found.history["patches"] == [16, 16, 8, 8, 6, 6]
    assert found.notes["tokens"] == 4 * sum(1 + n for n in (16, 16, 8, 8, 6, 6))
    assert found.notes["multiply_adds"] == 4 * sum(sparse_mi.multiply_adds(1 + n, 16, 2) for n in (16, 16, 8, 8, 6, 6))
    assert oracle.queries == 4 * 6
    dense, _ = rebuilt(transformer(), moments=(), shares=())
    assert dense.notes["tokens"] == 4 * 6 * 17
    assert dense.notes["patches_left"] == 16


def test_dropped_patches_are_black_and_the_rest_is_a_picture():
    found, _ = rebuilt(transformer())
    lit = (found.data.amax(dim=2) > 0).float().view(4, 4, 4, 4, 4).amax(dim=(2, 4)).flatten(1).sum(dim=1)
    assert (lit == 6).all()
    assert found.data.min() >= 0
    assert found.data.max() <= 1


def test_attention_decides_which_patches_stay():
    """Patches that all look alike: attention then depends on their positions alone and can be computed beforehand."""
    model = transformer()
    model.embed.weight.data.zero_()
    model.positions.data.mul_(50)
    with torch.no_grad(), patches.watched_patches(model) as watch:
        model(torch.zeros(1, 3, 16, 16, device=CPU))
        attention = patches.class_attention(model, watch.tokens)
    best = attention.topk(4, dim=1).indices
    change = {"moments": (0.5,), "shares": (0.75,), "steps": 2}
    kept = {ranking: rebuilt(model, ranking=ranking, **change)[0].data for ranking in sparse_mi.RANKINGS}
    wanted = patches.patch_mask(best, 4, 4)[0, 0]
    shown = {ranking: (found.amax(dim=2) > 0).float() for ranking, found in kept.items()}  # (classes, K, s, s)
    assert (shown["attention"] * (1 - wanted)).sum() == 0
    assert (shown["most-attended"] * wanted).sum() == 0
    assert (shown["random"] * (1 - wanted)).sum() > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shares": (0.3,)}, "equally many"),
        ({"shares": (0.3, 0.3, 1.0)}, "shares"),
        ({"moments": (0.3, 0.1, 0.4)}, "rise"),
        ({"moments": (0.0, 0.1, 0.4)}, "rise"),
        ({"ranking": "least"}, "ranking"),
        ({"steps": 0}, "steps"),
        ({"per_class": 0}, "per_class"),
        ({"flip": 2.0}, "flip"),
    ],
)
def test_rejects_impossible_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        sparse_mi.SparseMiConfig(**wrong)
