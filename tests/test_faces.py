"""The rendered faces: what the parameters mean, and that pictures depend on them alone."""

import pytest
import torch

from implementations.common import faces

IDENTITY = {parameter.name: i for i, parameter in enumerate(faces.IDENTITY)}
NUISANCE = {parameter.name: i for i, parameter in enumerate(faces.NUISANCE)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator(device="cpu").manual_seed(seed)


def plain(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """n times the mean person, facing the camera with open eyes, without noise."""
    nuisances = torch.full((n, len(NUISANCE)), 0.5, device="cpu")
    nuisances[:, [NUISANCE["lids"], NUISANCE["noise"]]] = 0
    return torch.full((n, len(IDENTITY)), 0.5, device="cpu"), nuisances


def sample(n: int, seed: int = 0, domain: str = "private") -> tuple[torch.Tensor, torch.Tensor]:
    g = generator(seed)
    return faces.sample_identities(n, g, "cpu"), faces.sample_nuisances(n, g, "cpu", domain)


def nearest_mean_accuracy(people: torch.Tensor) -> float:
    """Share of new pictures whose nearest mean picture is that of the same person."""
    images, _, _ = faces.face_dataset(people, 10, generator(1), size=16)
    means = images.unflatten(0, (len(people), 10)).mean(dim=1).flatten(1)
    new, truth, _ = faces.face_dataset(people, 6, generator(2), size=16)
    return (torch.cdist(new.flatten(1), means).argmin(dim=1) == truth).float().mean().item()


@pytest.mark.parametrize("size", [8, 32, 50])
@pytest.mark.parametrize("supersample", [1, 2, 3])
def test_shapes_and_ranges(size: int, supersample: int) -> None:
    people, how = sample(3)
    images = faces.render(people, how, size, supersample)
    assert images.shape == (3, 3, size, size)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.std(dim=(1, 2, 3)).min() > 0.05


def test_corners_of_the_parameter_space_are_pictures() -> None:
    people = torch.randint(0, 2, (64, len(IDENTITY)), generator=generator(), device="cpu").float()
    how = torch.randint(0, 2, (64, len(NUISANCE)), generator=generator(1), device="cpu").float()
    assert faces.render(people, how, 16).isfinite().all()


def test_the_same_parameters_give_the_same_picture_in_any_batch() -> None:
    people, how = sample(7)
    whole = faces.render(people, how)
    assert torch.equal(whole, faces.render(people, how))
    assert torch.allclose(whole, faces.render(people, how, chunk=2), atol=1e-6)
    assert torch.allclose(whole[4:5], faces.render(people[4:5], how[4:5]), atol=1e-6)


def test_sizes_show_the_same_portrait() -> None:
    people, how = sample(8)
    how[:, NUISANCE["noise"]] = 0
    large = torch.nn.functional.avg_pool2d(faces.render(people, how, 64), 2)
    small = faces.render(people, how, 32)
    assert (large - small).abs().mean() < 0.01


@pytest.mark.parametrize("name", IDENTITY)
def test_every_identity_parameter_is_visible(name: str) -> None:
    people, how = plain(2)
    people[0, IDENTITY[name]], people[1, IDENTITY[name]] = 0, 1
    if name == "glasses_shape":
        people[:, IDENTITY["glasses"]] = 1
    if name == "hair_curl":
        people[:, IDENTITY["hair_length"]] = 0.7
    low, high = faces.render(people, how, 48)
    assert (low - high).abs().max() > 0.05


@pytest.mark.parametrize("name", NUISANCE)
def test_every_nuisance_is_visible(name: str) -> None:
    people, how = plain(2)
    how[:, NUISANCE["light"]] = how[:, NUISANCE["background_saturation"]] = how[:, NUISANCE["noise"]] = 1
    how[0, NUISANCE[name]], how[1, NUISANCE[name]] = (0.25, 0.75) if name.endswith("hue") else (0, 1)
    low, high = faces.render(people, how, 48)
    assert (low - high).abs().max() > 0.03


def test_noise_has_its_seed_and_size() -> None:
    people, how = plain(3)
    clean = faces.render(people, how)
    how[:, NUISANCE["noise"]] = 1
    how[:, NUISANCE["noise_seed"]] = torch.tensor([0.1, 0.1, 0.7], device="cpu")
    grain = faces.render(people, how) - clean
    assert torch.equal(grain[0], grain[1])
    assert abs(torch.corrcoef(grain[[0, 2]].flatten(1))[0, 1].item()) < 0.1
    assert grain.mean().abs() < 0.002
    assert grain[0].std().item() == pytest.approx(0.03, rel=0.1)


def test_people_differ_more_than_pictures_of_one_person() -> None:
    people = faces.sample_identities(20, generator(), "cpu")
    assert nearest_mean_accuracy(people) > 0.35
    assert nearest_mean_accuracy(people[:1].repeat(20, 1)) < 0.15  # one person twenty times: chance is 0.05
    images, _, _ = faces.face_dataset(people[:1], 8, generator(3))
    assert torch.pdist(images.flatten(1), p=1).min() / images[0].numel() > 0.03  # no two pictures alike


def test_no_two_people_are_near_duplicates() -> None:
    people = faces.sample_identities(300, generator(), "cpu")
    gaps = torch.cdist(people, people) + 10 * torch.eye(300, device="cpu")
    assert gaps.min() > 0.5
    assert people.min() >= 0
    assert people.max() <= 1


def test_closeness_draws_people_together() -> None:
    spread = [torch.pdist(faces.sample_identities(50, generator(), "cpu", closeness=c)).mean().item() for c in (0, 0.3, 0.6)]
    assert spread[1] == pytest.approx(0.7 * spread[0], rel=1e-4)
    assert spread[2] == pytest.approx(0.4 * spread[0], rel=1e-4)


def test_glasses_and_beards_can_be_left_out() -> None:
    everybody = faces.sample_identities(200, generator(), "cpu")
    nobody = faces.sample_identities(200, generator(), "cpu", glasses=False, beards=False)
    for name, threshold in (("glasses", 0.65), ("beard", 0.6), ("moustache", 0.7)):
        assert (everybody[:, IDENTITY[name]] > threshold).float().mean() > 0.1
        assert (nobody[:, IDENTITY[name]] < threshold - 0.04).all()


def test_identity_error() -> None:
    a = torch.zeros(2, 3, len(IDENTITY), device="cpu")
    b = a.clone()
    b[0, 0] = 1
    b[1, 2, 0] = 0.5
    error = faces.identity_error(a, b)
    assert error.shape == (2, 3)
    assert error[0, 0] == 1
    assert error[1, 2].item() == pytest.approx(0.5 / len(IDENTITY))
    assert (error > 0).sum() == 2


def test_shifted_domain_has_other_backgrounds_and_light() -> None:
    people, private = sample(200)
    _, shifted = sample(200, domain="shifted")
    corners = []
    for how in (private, shifted):
        images = faces.render(people, how, 16)
        corners.append(torch.cat([images[..., :3, :2], images[..., :3, -2:]], dim=-1))
    level = [corner.mean().item() for corner in corners]
    colour = [(corner.amax(dim=1) - corner.amin(dim=1)).mean().item() for corner in corners]
    tilt = [(corner[..., :2].mean() - corner[..., 2:].mean()).item() for corner in corners]
    assert level[1] > level[0] + 0.1
    assert colour[1] > colour[0] + 0.05
    assert tilt[1] > abs(tilt[0]) + 0.05
    with pytest.raises(ValueError, match="domain"):
        faces.sample_nuisances(2, generator(), "cpu", domain="public")


def test_dataset_is_labelled_in_order() -> None:
    people = faces.sample_identities(4, generator(), "cpu")
    images, labels, how = faces.face_dataset(people, 3, generator(1), size=16, domain="shifted")
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert torch.allclose(images, faces.render(people[labels], how, 16), atol=1e-6)


def test_pictures_are_differentiable_in_the_identity() -> None:
    people, how = plain(1)
    people = people.requires_grad_()
    with torch.no_grad():
        painted = faces.render(people, how, 16)
    image = faces.render(people, how, 16)
    assert torch.allclose(image, painted, atol=1e-5)
    image.mean().backward()
    assert people.grad.isfinite().all()
    assert people.grad[0, IDENTITY["skin"]] < 0


def test_wrong_input_is_refused() -> None:
    people, how = plain(2)
    with pytest.raises(ValueError, match="people"):
        faces.render(people[:, 1:], how)
    with pytest.raises(ValueError, match="circumstances"):
        faces.render(people, how[:1])
    with pytest.raises(ValueError, match="identities must lie"):
        faces.render(people + 1, how)
    with pytest.raises(ValueError, match="nuisances must lie"):
        faces.render(people, how - 1)
    for wrong in ({"size": 4}, {"supersample": 0}, {"chunk": 0}):
        with pytest.raises(ValueError, match="at least"):
            faces.render(people, how, **wrong)
    with pytest.raises(ValueError, match="closeness"):
        faces.sample_identities(2, generator(), "cpu", closeness=1.0)
