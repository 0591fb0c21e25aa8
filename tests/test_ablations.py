"""The ablated networks: what each breaks, and that it breaks nothing else."""

from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from dcgan_lib.config import ModelConfig
from dcgan_lib.errors import UserError
from dcgan_lib.models.ablations import Ablation, ScaleAndBias, describe_pair, new_pair
from dcgan_lib.models.dcgan import Discriminator, Generator
from dcgan_lib.models.sampling import batch_norms

SMALL = ModelConfig(image_size=(32, 32), base_width=16)
PAPER_G, PAPER_D = 169_744, 66_416


def pair(ablation=None, config=SMALL, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return new_pair(config, ablation or Ablation())


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def latents(num=4, config=SMALL):
    return torch.rand(num, config.z_dim, generator=torch.Generator().manual_seed(1)) * 2 - 1


def equal_weights(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        ModelConfig(image_size=(28, 20), num_channels=1, base_width=4, hidden_units=8),
        ModelConfig(image_size=(32, 32), base_width=4, projection_bn="channel", kernel_size=4),
        ModelConfig(image_size=(32, 32), base_width=4, output="sigmoid", bn_affine=False),
    ],
)
def test_with_nothing_broken_it_is_the_paper_s_pair(config):
    generator, discriminator = pair(config=config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        paper_g, paper_d = Generator(config), Discriminator(config)
    assert equal_weights(generator, paper_g) and equal_weights(discriminator, paper_d)
    z_bd = latents(config=config)
    x_bchw = generator(z_bd)
    assert torch.equal(x_bchw, paper_g(z_bd))
    assert torch.equal(discriminator(x_bchw), paper_d(x_bchw))


def every_ablation():
    for entry in fields(Ablation):
        for value in entry.type.__args__ if hasattr(entry.type, "__args__") else ():
            if value != entry.default:
                yield Ablation(**{entry.name: value})


ABLATIONS = list(every_ablation())


def test_the_list_of_ablations_is_complete():
    assert len(ABLATIONS) == 14
    assert Ablation().broken == () and all(len(each.broken) == 1 for each in ABLATIONS)


@pytest.mark.parametrize("ablation", ABLATIONS, ids=lambda each: str(each.broken))
def test_every_pair_draws_judges_and_learns(ablation):
    generator, discriminator = pair(ablation)
    x_bchw = generator(latents())
    logits_b = discriminator(x_bchw)
    assert x_bchw.shape == (4, 3, 32, 32) and x_bchw.dtype == torch.float32
    assert logits_b.shape == (4,) and logits_b.dtype == torch.float32
    logits_b.sum().backward()
    for network in (generator, discriminator):
        assert all(parameter.grad is not None for parameter in network.parameters())


NUMBERS = {
    Ablation(resampling="max pooling"): (PAPER_G, PAPER_D),
    Ablation(resampling="average pooling"): (PAPER_G, PAPER_D),
    Ablation(batch_norm="nowhere"): (PAPER_G, PAPER_D),
    Ablation(batch_norm="everywhere"): (PAPER_G + 2 * 3, PAPER_D + 2 * 16),
    Ablation(batch_norm="G's output"): (PAPER_G + 2 * 3, PAPER_D),
    Ablation(batch_norm="D's input"): (PAPER_G, PAPER_D + 2 * 16),
    Ablation(head="global average pooling"): (PAPER_G, PAPER_D - 15 * 64),
    Ablation(g_output="unbounded"): (PAPER_G, PAPER_D),
    Ablation(d_activation="maxout"): (PAPER_G, 2 * (PAPER_D - 1_024) + 1_024),
    Ablation(weights="He"): (PAPER_G, PAPER_D),
}


@pytest.mark.parametrize("ablation", NUMBERS, ids=lambda each: str(each.broken))
def test_numbers_of_weights(ablation):
    assert tuple(map(count, pair(ablation))) == NUMBERS[ablation]


@pytest.mark.parametrize(
    ("ablation", "same_g", "same_d"),
    [
        (Ablation(resampling="max pooling"), False, True),
        (Ablation(batch_norm="G's output"), False, True),
        (Ablation(batch_norm="D's input"), True, False),
        (Ablation(head="global average pooling"), True, False),
        (Ablation(g_output="unbounded"), True, True),
        (Ablation(g_activation="tanh"), True, True),
        (Ablation(d_activation="maxout"), True, False),
        (Ablation(weights="PyTorch"), False, False),
    ],
    ids=lambda each: str(getattr(each, "broken", each)),
)
def test_what_is_not_broken_keeps_its_weights(ablation, same_g, same_d):
    paper_g, paper_d = pair()
    generator, discriminator = pair(ablation)
    assert equal_weights(generator, paper_g) == same_g
    assert equal_weights(discriminator, paper_d) == same_d


def test_unbounded_images_leave_the_range_and_bounded_ones_do_not():
    z_bd = 30 * latents()
    bounded, unbounded = pair()[0], pair(Ablation(g_output="unbounded"))[0]
    for network in (bounded, unbounded):
        nn.init.normal_(network.convs[-1].weight, 0, 1)
    assert bounded(z_bd).abs().max() <= 1 < unbounded(z_bd).abs().max()


def test_batch_norm_stands_where_it_is_said_to():
    number = {
        "paper": (3, 2),
        "everywhere": (4, 3),
        "G's output": (4, 2),
        "D's input": (3, 3),
        "nowhere": (0, 0),
    }
    for batch_norm, expected in number.items():
        networks = pair(Ablation(batch_norm=batch_norm))
        assert tuple(len(batch_norms(network)) for network in networks) == expected
    plain = [m for m in networks[0].modules() if isinstance(m, ScaleAndBias)]
    assert len(plain) == 3 and plain[0].weight.std() > 0.01  # as batch norm's scale was drawn


def test_without_batch_norm_an_image_does_not_depend_on_its_neighbours():
    z_bd = latents()
    with_norm, without = pair()[0], pair(Ablation(batch_norm="nowhere"))[0]
    assert torch.allclose(without(z_bd)[:2], without(z_bd[:2]), atol=1e-6)
    assert not torch.allclose(with_norm(z_bd)[:2], with_norm(z_bd[:2]), atol=1e-6)


def test_pooling_takes_the_place_of_strides():
    for ablation in (Ablation(resampling="max pooling"), Ablation(resampling="average pooling")):
        generator, discriminator = pair(ablation)
        strides = [m.stride for m in discriminator.modules() if isinstance(m, nn.Conv2d)]
        strides += [m.stride for m in generator.modules() if isinstance(m, nn.Conv2d)]
        assert set(strides) == {(1, 1)} and len(strides) == 6
        assert not [m for m in generator.modules() if isinstance(m, nn.ConvTranspose2d)]
        maps = discriminator.features(generator(latents()))
        assert [tuple(h.shape[1:]) for h in maps] == [(16, 16, 16), (32, 8, 8), (64, 4, 4)]


def test_weights_have_the_standard_deviation_that_they_are_named_after():
    wide = pair(Ablation(weights="N(0, 0.2)"))
    for network in wide:
        assert network.convs[1].weight.std().item() == pytest.approx(0.2, rel=0.05)
    scaled = pair(Ablation(weights="He"))[1]
    inputs = scaled.convs[1].weight[0].numel()
    assert scaled.convs[1].weight.std().item() == pytest.approx((2 / inputs) ** 0.5, rel=0.05)


def test_global_average_pooling_does_not_know_where_a_thing_stands():
    discriminator = pair(Ablation(head="global average pooling"))[1].eval()
    h = torch.rand(1, 64, 4, 4)
    discriminator.features = lambda x_bchw: [h if x_bchw.sum() == 0 else h.flip(3)]
    zeros, ones = torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)
    assert torch.allclose(discriminator(zeros), discriminator(ones), atol=1e-6)


@pytest.mark.parametrize(
    ("config", "ablation", "message"),
    [
        (ModelConfig(num_classes=10), Ablation(), "num_classes 10"),
        (
            ModelConfig(architecture="dense", hidden_units=8, num_stages=1),
            Ablation(),
            "architecture 'dense'",
        ),
        (ModelConfig(kernel_size=4), Ablation(resampling="max pooling"), "cannot keep the side"),
    ],
)
def test_what_cannot_be_ablated_is_refused(config, ablation, message):
    with pytest.raises(UserError, match=message):
        new_pair(config, ablation)


def test_an_unknown_ablation_is_refused():
    with pytest.raises(UserError, match="batch_norm must be one of"):
        Ablation(batch_norm="sometimes")


# --- the description ---
@pytest.mark.parametrize("ablation", list(every_ablation()))
def test_the_description_has_every_weight(ablation):
    described = describe_pair(SMALL, ablation)
    for network, layers in zip(pair(ablation), described.values(), strict=True):
        assert sum(layer.weights for layer in layers) == count(network)


def pixels_touched(gradient_chw):
    hit_hw = gradient_chw.abs().sum(0) > 0
    return int(hit_hw.any(1).sum()), int(hit_hw.any(0).sum())


@pytest.mark.parametrize(
    ("config", "ablation"),
    [
        (SMALL, Ablation(g_activation="leaky relu")),
        (replace(SMALL, kernel_size=3), Ablation(g_activation="leaky relu")),
        (replace(SMALL, kernel_size=4), Ablation(g_activation="leaky relu")),
        (SMALL, Ablation(g_activation="leaky relu", resampling="average pooling")),
    ],
)
def test_fields_are_those_that_gradients_find(config, ablation):
    """In a wide picture, whose edges cut nothing off."""
    wide = replace(config, image_size=(128, 128), num_stages=3)
    generator, discriminator = (network.eval() for network in pair(ablation, wide))
    described = describe_pair(wide, ablation)
    x_bchw = torch.rand(1, 3, 128, 128, requires_grad=True)
    maps = discriminator.features(x_bchw)
    for h, layer in zip(maps, described["discriminator"], strict=False):
        (gradient,) = torch.autograd.grad(
            h[0, :, h.shape[2] // 2, h.shape[3] // 2].sum(), x_bchw, retain_graph=True
        )
        assert pixels_touched(gradient[0]) == (layer.field, layer.field), layer.name
    for k in range(len(generator.convs) - 1):
        layer = described["generator"][k]  # what it gives is the input of the next convolution
        h = torch.zeros(1, *map(int, layer.shape.split(" × ")))
        changed = h.clone()
        changed[0, :, h.shape[2] // 2, h.shape[3] // 2] = 1
        with torch.no_grad():
            images = [_from_grid(generator, x, k) for x in (h, changed)]
        assert pixels_touched(images[1][0] - images[0][0]) == (layer.field, layer.field)


def _from_grid(generator, h, first):
    for conv, norm in list(zip(generator.convs, generator.norms, strict=False))[first:]:
        h = generator.activate(norm(conv(h)))
    return generator.convs[-1](h)


def test_shapes_are_listed_and_pooling_costs_four_times_the_multiplications():
    usual, pooled = (describe_pair(SMALL, Ablation(resampling=each)) for each in RESAMPLINGS)
    assert [layer.shape for layer in usual["generator"]] == [
        "64 × 4 × 4",
        "32 × 8 × 8",
        "16 × 16 × 16",
        "3 × 32 × 32",
    ]
    for network, convolutions in (("generator", slice(1, None)), ("discriminator", slice(3))):
        for layer, other in zip(usual[network], pooled[network], strict=True):
            assert layer.shape == other.shape
        costs = [
            [layer.multiplications for layer in layers[network][convolutions]]
            for layers in (usual, pooled)
        ]
        assert [4 * cost for cost in costs[0]] == costs[1]


RESAMPLINGS = ("strided", "max pooling")


def test_a_hidden_layer_sees_and_changes_the_whole_picture():
    described = describe_pair(replace(SMALL, hidden_units=8), Ablation())
    assert [layer.name for layer in described["generator"]][:2] == ["hidden", "project"]
    assert described["generator"][0].field == described["discriminator"][-2].field == 32
    maxout = describe_pair(SMALL, Ablation(d_activation="maxout"))["discriminator"]
    assert maxout[0].shape == "16 × 16 × 16" and maxout[0].weights == 2 * 1_200
