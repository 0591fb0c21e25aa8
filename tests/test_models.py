"""The networks against the paper and the authors' code, and at every size they promise."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from trace_layers import trace_layers

from dcgan_lib.config import ModelConfig, TrainConfig, from_dict, recipe, recipes, to_dict
from dcgan_lib.errors import UserError
from dcgan_lib.models.dcgan import Discriminator, Generator
from dcgan_lib.models.layers import Conv2d, ConvTranspose2d
from dcgan_lib.models.sampling import (
    batch_norms,
    from_u8,
    generate_u8,
    refresh_batch_norm,
    sample_latents,
    seeded,
    to_u8,
)

SMALL = ModelConfig(image_size=(16, 16), base_width=4, z_dim=8)


def outputs(network, *kinds: str) -> list[str]:
    return [output for kind, _, output in trace_layers(network) if kind in kinds]


def num_weights(network) -> int:
    """Weights without batch norm, as the sources count them."""
    return sum(p.numel() for name, p in network.named_parameters() if "norm" not in name)


# Layer tables of the authors' code, read off it: (recipe, generator's shapes, discriminator's,
# kernel, strides of D).
AUTHORS = [
    (
        "paper-faces",
        "16384|512 x 8 x 8|256 x 16 x 16|128 x 32 x 32|3 x 64 x 64",
        "128 x 32 x 32|256 x 16 x 16|512 x 8 x 8|1024 x 4 x 4|1",
        5,
        [2, 2, 2, 2],
    ),
    (
        "paper-imagenet32",
        "8192|512 x 8 x 8|256 x 8 x 8|256 x 16 x 16|128 x 16 x 16|128 x 32 x 32|3 x 32 x 32",
        "128 x 32 x 32|128 x 16 x 16|256 x 16 x 16|256 x 8 x 8|512 x 8 x 8|512 x 4 x 4|1",
        3,
        [1, 2, 1, 2, 1, 2],
    ),
    (
        "paper-svhn",
        "4096|128 x 8 x 8|64 x 16 x 16|3 x 32 x 32",
        "64 x 16 x 16|128 x 8 x 8|256 x 4 x 4|1",
        5,
        [2, 2, 2],
    ),
    (
        "paper-mnist",
        "1024|6272|64 x 14 x 14|1 x 28 x 28",
        "64 x 14 x 14|128 x 7 x 7|1024|1",
        5,
        [2, 2],
    ),
]


@pytest.mark.parametrize(("name", "g_shapes", "d_shapes", "kernel", "strides"), AUTHORS)
def test_recipes_have_the_authors_layers(name, g_shapes, d_shapes, kernel, strides):
    model = recipe(name).config.model
    generator, discriminator = Generator(model), Discriminator(model)
    assert outputs(generator, "Linear", "ConvTranspose2d") == g_shapes.split("|")
    assert outputs(discriminator, "Linear", "Conv2d") == d_shapes.split("|")
    assert [conv.stride[0] for conv in discriminator.convs] == strides
    assert {conv.kernel_size for conv in [*generator.convs, *discriminator.convs]} == {
        (kernel, kernel)
    }


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (12, 20)])
def test_pixels_layers_compute_the_sums_of_pytorchs(channels, size):
    """Outputs and all three gradients, for the layer that sees the pixels and the one that gives
    them."""
    torch.manual_seed(0)
    down = Conv2d(channels, 6, 5, 2, 2, bias=False)
    up = ConvTranspose2d(6, channels, 5, 2, 2, 1, bias=False)
    fine, coarse = torch.randn(2, channels, *size), torch.randn(2, 6, size[0] // 2, size[1] // 2)
    for ours, theirs, h in (
        (down, torch.nn.Conv2d.forward, fine),
        (up, torch.nn.ConvTranspose2d.forward, coarse),
    ):
        found = []
        for forward in (type(ours).forward, theirs):
            h_copy = h.clone().requires_grad_()
            out = forward(ours, h_copy)
            weights = torch.linspace(-1, 1, out.numel()).view_as(out)
            found.append((out, *torch.autograd.grad((out * weights).sum(), (h_copy, ours.weight))))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_parameter_counts_of_the_faces_network():
    """18.9 and 17.2 million weights at width 128; 3.57 and 2.76 million for the popular width 64,
    kernel 4."""
    model = recipe("paper-faces").config.model
    assert (
        num_weights(Generator(model))
        == 100 * 16384 + 25 * (1024 * 512 + 512 * 256 + 256 * 128 + 128 * 3)
        == 18_851_200
    )
    assert (
        num_weights(Discriminator(model))
        == 25 * (3 * 128 + 128 * 256 + 256 * 512 + 512 * 1024) + 16384
        == 17_229_184
    )
    popular = dataclasses.replace(model, base_width=64, kernel_size=4, projection_bn="channel")
    assert round(num_weights(Generator(popular)) / 1e6, 2) == 3.57
    assert round(num_weights(Discriminator(popular)) / 1e6, 2) == 2.76


def test_feature_units_of_the_svm_experiments():
    """28,672 numbers from the ImageNet network and 7,168 from the SVHN one, at a 4x4 grid a
    layer."""
    for name, units in (("paper-imagenet32", 28_672), ("paper-svhn", 7_168)):
        discriminator = Discriminator(recipe(name).config.model)
        maps = discriminator.features(torch.zeros(2, 3, 32, 32))
        assert 16 * sum(m.shape[1] for m in maps) == units


def test_mnist_network_concatenates_the_label_everywhere():
    model = recipe("paper-mnist").config.model
    generator, discriminator = Generator(model), Discriminator(model)
    assert [generator.hidden.in_features, generator.project.in_features] == [110, 1034]
    assert [conv.in_channels for conv in generator.convs] == [138, 74]
    assert [conv.in_channels for conv in discriminator.convs] == [11, 74]
    assert [discriminator.hidden.in_features, discriminator.head.in_features] == [6282, 1034]
    assert not [
        name
        for name, _ in [*generator.named_parameters(), *discriminator.named_parameters()]
        if "norm" in name
    ]


def test_batch_norm_is_left_out_where_the_paper_says():
    model = recipe("paper-faces").config.model
    kinds = [kind for kind, _, _ in trace_layers(Generator(model))]
    assert kinds == [
        "Linear",
        "BatchNorm1d",
        *["ConvTranspose2d", "BatchNorm2d"] * 3,
        "ConvTranspose2d",
    ]
    kinds = [kind for kind, _, _ in trace_layers(Discriminator(model))]
    assert kinds == ["Conv2d", *["Conv2d", "BatchNorm2d"] * 3, "Linear"]
    assert all(
        getattr(m, "bias", None) is None
        for m in Generator(model).modules()
        if isinstance(m, torch.nn.ConvTranspose2d)
    )


def test_weights_are_drawn_as_the_authors_did():
    torch.manual_seed(0)
    generator = Generator(recipe("paper-svhn").config.model)
    weight = generator.convs[0].weight
    assert abs(weight.mean().item()) < 1e-3 and abs(weight.std().item() - 0.02) < 1e-3
    scale = generator.project_norm.weight
    assert abs(scale.mean().item() - 1) < 5e-3 and abs(scale.std().item() - 0.02) < 2e-3
    assert generator.project_norm.bias.abs().max() == 0


@settings(max_examples=60)
@given(
    height=st.integers(8, 128),
    width=st.integers(8, 128),
    channels=st.sampled_from([1, 3]),
    kernel=st.sampled_from([3, 4, 5]),
    per_stage=st.sampled_from([1, 2]),
    classes=st.sampled_from([0, 3]),
    hidden=st.sampled_from([0, 5]),
    projection=st.sampled_from(["unit", "channel"]),
)
def test_every_size_works(height, width, channels, kernel, per_stage, classes, hidden, projection):
    if kernel == 4 and per_stage == 2:
        return
    model = ModelConfig(
        image_size=(height, width),
        num_channels=channels,
        kernel_size=kernel,
        convs_per_stage=per_stage,
        num_classes=classes,
        hidden_units=hidden,
        projection_bn=projection,
        base_width=1,
        z_dim=3,
    )
    labels = torch.zeros(2, dtype=torch.long) if classes else None
    with torch.no_grad():
        x_bchw = Generator(model)(torch.zeros(2, 3), labels)
        assert x_bchw.shape == (2, channels, height, width)
        assert Discriminator(model)(x_bchw, labels).shape == (2,)


@pytest.mark.parametrize(
    ("size", "channels", "kernel"),
    [((32, 32), 1, 5), ((30, 44), 3, 5), ((31, 32), 3, 5), ((32, 32), 3, 4)],
)
def test_last_layer_computes_the_same_whether_it_trains_or_not(size, channels, kernel):
    config = ModelConfig(image_size=size, num_channels=channels, base_width=4, kernel_size=kernel)
    last = Generator(config).double().convs[-1]
    h = torch.randn(
        3, last.in_channels, *((side + kernel % 2) // 2 for side in size), dtype=torch.float64
    )
    training = last(h)
    with torch.no_grad():
        torch.testing.assert_close(training, last(h), rtol=1e-12, atol=1e-12)


def test_gradients_lie_in_memory_as_their_maps_do(monkeypatch):
    """An elementwise backward pass over two different layouts is 30 times slower on a CPU."""
    config, layouts = ModelConfig(image_size=(32, 32), base_width=8), []

    def watch(function):
        def watched(*arguments, **keywords):
            h = function(*arguments, **keywords)
            h.register_hook(
                lambda gradient: layouts.append((tuple(h.shape), h.stride(), gradient.stride()))
            )
            return h

        return watched

    monkeypatch.setattr(F, "relu", watch(F.relu))
    monkeypatch.setattr(F, "leaky_relu", watch(F.leaky_relu))
    generator = Generator(config).to(memory_format=torch.channels_last)
    discriminator = Discriminator(config).to(memory_format=torch.channels_last)
    discriminator(generator(sample_latents(4, config, seeded(0)))).sum().backward()
    assert len(layouts) == 6
    assert [entry for entry in layouts if entry[1] != entry[2]] == []


def test_base_grids():
    for size, grid in (
        ((64, 64), (4, 4)),
        ((28, 28), (7, 7)),
        ((64, 48), (8, 6)),
        ((96, 96), (6, 6)),
        ((128, 8), (64, 4)),
    ):
        assert Generator(dataclasses.replace(SMALL, image_size=size)).base_shape[1:] == grid


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"image_size": (7, 64)}, "image_size must be"),
        ({"image_size": (64, 257)}, "image_size must be"),
        ({"num_channels": 2}, r"one of \[1, 3\]"),
        ({"kernel_size": 6}, "kernel_size must be"),
        ({"z_dim": 0}, "at least 1"),
        ({"z_distribution": "cauchy"}, "z_distribution"),
        ({"num_stages": 9}, "num_stages"),
        ({"kernel_size": 4, "convs_per_stage": 2}, "use 3 or 5"),
    ],
)
def test_bad_models_are_refused(settings_, message):
    with pytest.raises(UserError, match=message):
        ModelConfig(**settings_)


@pytest.mark.parametrize(
    "settings_",
    [{"batch_size": 1}, {"beta1": 1.0}, {"learning_rate": 0}, {"steps": 0}, {"schedule": "x"}],
)
def test_bad_runs_are_refused(settings_):
    with pytest.raises(UserError, match=next(iter(settings_))):
        TrainConfig(**settings_)


def test_recipes_survive_json_and_unknown_fields_are_named():
    for entry in recipes().values():
        assert from_dict(to_dict(entry.config)) == entry.config
    with pytest.raises(UserError, match="nonsense"):
        from_dict({"nonsense": 1})
    with pytest.raises(UserError, match="choose one of"):
        recipe("nonsense")


def test_wrong_inputs_are_refused_in_words():
    generator, discriminator = Generator(SMALL), Discriminator(SMALL)
    with pytest.raises(UserError, match=r"\(batch, 8\)"):
        generator(torch.zeros(2, 9))
    with pytest.raises(UserError, match="takes no labels"):
        generator(torch.zeros(2, 8), torch.zeros(2, dtype=torch.long))
    with pytest.raises(UserError, match="needs labels"):
        Generator(dataclasses.replace(SMALL, num_classes=2))(torch.zeros(2, 8))
    with pytest.raises(UserError, match="16, 16"):
        discriminator(torch.zeros(2, 3, 8, 8))


def test_latents_follow_their_distribution():
    uniform = sample_latents(5_000, SMALL, seeded(0))
    assert uniform.min() >= -1 and uniform.max() <= 1 and abs(uniform.std().item() - 3**-0.5) < 0.01
    normal = sample_latents(5_000, dataclasses.replace(SMALL, z_distribution="normal"), seeded(0))
    assert normal.max() > 2 and abs(normal.std().item() - 1) < 0.02
    assert torch.equal(uniform, sample_latents(5_000, SMALL, seeded(0)))


@pytest.mark.parametrize("output", ["tanh", "sigmoid"])
def test_pixels_survive_the_round_trip_and_a_wrong_range_is_refused(output):
    model = dataclasses.replace(SMALL, output=output)
    x_u8 = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_u8(from_u8(x_u8, model), model), x_u8)
    with pytest.raises(UserError, match="scale them first"):
        to_u8(x_u8.float(), model)


def test_sampling_leaves_the_network_as_it_was():
    generator = Generator(SMALL).train()
    z_bd = sample_latents(10, SMALL, seeded(1))
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    for size in (1, len(z_bd) - 1):
        with pytest.raises(UserError, match="a batch of one latent vector"):
            generate_u8(generator, z_bd, batch_stats=True, batch_size=size)
    running, batch = generate_u8(generator, z_bd), generate_u8(generator, z_bd, batch_stats=True)
    assert generator.training and running.shape == (10, 3, 16, 16) and not (running == batch).all()
    assert all(torch.equal(before[name], value) for name, value in generator.state_dict().items())
    one_by_one = [generate_u8(generator, z_bd[i : i + 1])[0] for i in range(10)]
    assert abs(running.astype(int) - one_by_one).max() <= 1, (
        "with running statistics a picture has no neighbours"
    )


def test_refreshed_statistics_are_those_of_the_layer():
    generator = Generator(SMALL)
    refresh_batch_norm(generator, num_batches=50, batch_size=64)
    seen = []
    generator.project.register_forward_hook(lambda _m, _i, out: seen.append(out))
    generator.eval()(sample_latents(4_000, SMALL, seeded(9)))
    torch.testing.assert_close(
        generator.project_norm.running_var, seen[0].var(0), rtol=0.15, atol=0
    )
    assert generator.project_norm.momentum == 0.1


@pytest.mark.parametrize("hidden_units", [0, 3])
def test_every_batch_norm_takes_the_configured_epsilon(hidden_units):
    config = ModelConfig(image_size=(16, 16), base_width=2, bn_eps=1e-8, hidden_units=hidden_units)
    for network in (Generator(config), Discriminator(config)):
        assert {norm.eps for norm in batch_norms(network)} == {1e-8}
