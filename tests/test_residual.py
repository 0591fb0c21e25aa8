"""The residual pair, the R1 penalty, and the experiment that sets the pair beside the DCGAN."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from test_training import all_tensors, run, same_bits, tiny_set
from torch import nn

from dcgan_lib import cli
from dcgan_lib.config import ModelConfig, TrainConfig, from_dict, to_dict
from dcgan_lib.data.image_set import ImageSet
from dcgan_lib.errors import UserError
from dcgan_lib.evaluation.features import (
    ConvFeatures,
    FeatureExtractor,
    batch_statistics,
    with_statistics,
)
from dcgan_lib.evaluation.ledger import load_details, load_row, save_details
from dcgan_lib.experiments import residual_gan
from dcgan_lib.experiments.residual_gan import (
    BUDGETS,
    CHECK,
    CONTRASTS,
    MOST_APART,
    PLAIN,
    REFERENCE,
    VARIANTS,
    Plan,
    Settings,
    compared_with_plain,
    contrasts_table,
    count_parameters,
    kept_plan,
    kept_runs,
    matching_width,
    measure_run,
    outcome,
    paired_difference,
    plan_name,
    plan_text,
    record_claim,
    table_text,
)
from dcgan_lib.experiments.short_runs import Yardstick, train_run
from dcgan_lib.interpretation.forgetting import check_layer
from dcgan_lib.interpretation.saliency import responses
from dcgan_lib.models.ablations import Ablation, new_pair
from dcgan_lib.models.baselines import SupervisedCnn
from dcgan_lib.models.networks import new_discriminator, new_generator
from dcgan_lib.models.residual import ResidualBlock
from dcgan_lib.models.sampling import batch_norms, generate_u8, sample_latents, seeded
from dcgan_lib.paths import exclusive
from dcgan_lib.training import checkpoints
from dcgan_lib.training.loop import Batches, draw_latents, draw_shifts
from dcgan_lib.training.step import make_gan, r1_penalty, train_step
from dcgan_lib.widgets.export import export_judge, export_model, names_for_pages
from dcgan_lib.widgets.judge import Judge

TINY = ModelConfig(
    architecture="residual", image_size=(8, 8), num_channels=1, base_width=4, z_dim=6
)
CONFIG = TrainConfig(
    model=TINY,
    batch_size=8,
    steps=6,
    precision="float32",
    num_samples=4,
    log_every=2,
    save_seconds=0,
)


def residual(**fields) -> ModelConfig:
    return dataclasses.replace(TINY, **fields)


# --- the networks ---
@pytest.mark.parametrize(
    ("side", "generator", "discriminator"), [(64, 8.12, 7.30), (32, 2.26, 1.85)]
)
def test_published_widths_have_the_published_numbers_of_parameters(side, generator, discriminator):
    model = ModelConfig(architecture="residual", image_size=(side, side), base_width=64)
    counted = [
        sum(weight.numel() for weight in network.parameters()) / 1e6
        for network in (new_generator(model), new_discriminator(model))
    ]
    assert counted == pytest.approx([generator, discriminator], abs=0.005)
    other = dataclasses.replace(model, base_width=63)
    assert count_parameters(other) / 1e6 < generator + discriminator - 0.1


def test_the_tables_shapes_at_64():
    model = ModelConfig(architecture="residual", image_size=(64, 64), base_width=64)
    generator, discriminator = new_generator(model), new_discriminator(model)
    widths = [
        [(block.conv_1.in_channels, block.conv_2.out_channels) for block in network.blocks]
        for network in (generator, discriminator)
    ]
    assert widths[0] == [(512, 512), (512, 256), (256, 128), (128, 64), (64, 64)]
    assert widths[1] == [(64, 64), (64, 128), (128, 256), (256, 512), (512, 512)]
    assert generator.base_shape == (512, 4, 4) and generator.project.out_features == 8192
    assert discriminator.head.in_features == 8192
    with torch.no_grad():
        maps = discriminator.features(torch.zeros(1, 3, 64, 64))
    assert [tuple(h.shape[1:]) for h in maps] == [
        (64, 32, 32),
        (128, 16, 16),
        (256, 8, 8),
        (512, 4, 4),
        (512, 4, 4),
    ]


@pytest.mark.parametrize("size", [(8, 8), (9, 128), (28, 28), (33, 47), (64, 96), (128, 128)])
@pytest.mark.parametrize("classes", [0, 3])
def test_every_size_of_the_dcgan_works(size, classes):
    model = residual(image_size=size, num_channels=3, base_width=2, num_classes=classes)
    labels_b = torch.arange(2) if classes else None
    generator, discriminator = new_generator(model), new_discriminator(model)
    x_bchw = generator(torch.rand(2, 6), labels_b)
    assert x_bchw.shape == (2, 3, *size) and x_bchw.abs().max() <= 1
    logits_b = discriminator(x_bchw, labels_b)
    assert logits_b.shape == (2,) and logits_b.dtype == torch.float32
    assert len(discriminator.features(x_bchw, labels_b)) == discriminator.num_layers


def test_labels_matter_where_there_are_some_and_are_refused_where_there_are_none():
    model = residual(num_classes=3)
    generator, discriminator = new_generator(model), new_discriminator(model)
    z_bd, x_bchw = torch.rand(1, 6), torch.rand(1, 1, 8, 8)
    zero, one = torch.tensor([0]), torch.tensor([1])
    assert not torch.equal(generator(z_bd, zero), generator(z_bd, one))
    assert not torch.equal(discriminator(x_bchw, zero), discriminator(x_bchw, one))
    with pytest.raises(UserError, match="takes no labels"):
        new_generator(TINY)(z_bd, zero)
    with pytest.raises(UserError, match=r"shape \(batch, 1, 8, 8\)"):
        new_discriminator(TINY)(torch.rand(1, 1, 9, 9))


def test_the_output_is_that_of_the_last_layer_that_features_returns():
    for norm in ("none", "batch", "layer"):
        discriminator = new_discriminator(residual(residual_norm=norm)).eval()
        x_bchw = torch.rand(4, 1, 8, 8)
        last = discriminator.features(x_bchw)[-1].permute(0, 2, 3, 1).flatten(1)
        torch.testing.assert_close(discriminator.head(last)[:, 0], discriminator(x_bchw))


@pytest.mark.parametrize("outputs", [4, 6])
def test_with_alpha_0_a_block_is_its_shortcut(outputs):
    h = torch.randn(2, 4, 5, 5)
    still = ResidualBlock(4, outputs, residual(residual_alpha=0))
    torch.testing.assert_close(still(h), still.shortcut(h), rtol=0, atol=0)
    assert outputs != 4 or torch.equal(still(h), h)
    moving = ResidualBlock(4, outputs, residual(residual_alpha=0.1))
    assert not torch.equal(moving(h), moving.shortcut(h))


def test_a_block_adds_alpha_times_two_convolutions():
    config = residual(residual_alpha=0.3, residual_activation="relu")
    block, h = ResidualBlock(4, 6, config), torch.randn(2, 4, 5, 5)
    f = block.conv_2(block.conv_1(h.clamp(min=0)).clamp(min=0))
    torch.testing.assert_close(block(h), block.shortcut(h) + 0.3 * f)
    assert block.conv_1.out_channels == 4 and block.shortcut.bias is None
    leaky = ResidualBlock(4, 6, residual(residual_alpha=0.3))
    leaky.load_state_dict(block.state_dict())
    assert not torch.allclose(leaky(h), block(h))


def test_norms_stand_before_every_activation_but_the_one_that_reads_the_pixels():
    kinds = {"none": (0, 0), "batch": (7, 6), "layer": (7, 6)}
    for norm, counts in kinds.items():
        model = residual(image_size=(16, 16), residual_norm=norm)
        found = tuple(
            sum(isinstance(layer, nn.BatchNorm2d | nn.GroupNorm) for layer in network.modules())
            for network in (new_generator(model), new_discriminator(model))
        )
        assert found == counts
    batch = new_discriminator(residual(residual_norm="batch"))
    assert isinstance(batch.blocks[0].norm_1, nn.Identity) and len(batch_norms(batch)) == 4


def test_layer_norm_is_over_one_image_and_all_its_maps():
    block = ResidualBlock(4, 4, residual(residual_norm="layer"))
    h = torch.randn(3, 4, 5, 5) * torch.tensor([1.0, 10, 100])[:, None, None, None]
    normed = block.norm_1(h)
    torch.testing.assert_close(normed.mean((1, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(normed.std((1, 2, 3), False), torch.ones(3), rtol=0, atol=1e-4)
    assert normed.mean((2, 3)).abs().max() > 0.01  # not each map for itself


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_first_weights_neither_starve_nor_blow_up_what_passes(alpha):
    model = residual(image_size=(64, 64), base_width=8, residual_alpha=alpha, num_channels=3)
    torch.manual_seed(0)
    generator, discriminator = new_generator(model), new_discriminator(model)
    pictures = generator(sample_latents(64, model, seeded(0)))
    assert 0.1 < pictures.std() < 0.95
    assert 0.02 < discriminator(torch.rand(64, 3, 64, 64) * 2 - 1).std() < 20
    for layer in generator.modules():  # the twin: the DCGAN's first weights
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.02)
    assert generator(sample_latents(64, model, seeded(0))).std() < 1e-3


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_gradients_reach_every_layer(norm):
    model = residual(image_size=(32, 32), residual_norm=norm)
    generator, discriminator = new_generator(model), new_discriminator(model)
    discriminator(generator(sample_latents(8, model, seeded(0)))).sum().backward()
    for network in (generator, discriminator):
        for name, weight in network.named_parameters():
            if name.endswith("weight"):
                assert weight.grad.abs().max() > 1e-6, name


def test_settings_that_the_pair_does_not_have_are_refused():
    for wrong in ({"hidden_units": 8}, {"convs_per_stage": 2}):
        with pytest.raises(UserError, match="no hidden layer and no plain stages"):
            residual(**wrong)
    with pytest.raises(UserError, match="residual_norm"):
        residual(residual_norm="group")
    with pytest.raises(UserError, match="residual_alpha"):
        residual(residual_alpha=-0.1)


def test_old_configurations_have_neither_the_pair_nor_the_penalty():
    saved = to_dict(TrainConfig())
    del saved["r1_weight"]
    for name in ("residual_alpha", "residual_norm", "residual_activation"):
        del saved["model"][name]
    assert from_dict(saved) == TrainConfig()


# --- where it is used, and where it is refused ---
def test_layers_are_features_for_a_classifier():
    images_u8 = np.random.default_rng(0).integers(0, 256, (260, 1, 8, 8), dtype=np.uint8)
    plain = new_discriminator(TINY)
    assert ConvFeatures(plain, grid=2)(images_u8).shape == (260, 2 * 4 * 2 * 2)
    assert batch_statistics(plain, images_u8) == []
    network = new_discriminator(residual(residual_norm="batch"))
    measured = with_statistics(network, batch_statistics(network, images_u8)).eval()
    h = measured.from_pixels(torch.from_numpy(images_u8[:256]) / 127.5 - 1)
    h = measured.blocks[0].conv_1(nn.functional.leaky_relu(h, 0.2))
    mean = measured.blocks[0].norm_2.running_mean
    torch.testing.assert_close(mean, h.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)


def test_what_follows_plain_convolutions_refuses_the_pair():
    images_u8 = np.zeros((2, 1, 8, 8), np.uint8)
    with pytest.raises(UserError, match="the discriminator is a residual one"):
        responses(new_discriminator(TINY), images_u8)
    with pytest.raises(UserError, match="only a DCGAN's generator has maps"):
        check_layer(new_generator(TINY), 0)
    with pytest.raises(UserError, match="unconditional convolutional"):
        new_pair(TINY, Ablation())
    with pytest.raises(UserError, match="unconditional convolutional"):
        SupervisedCnn(TINY, 10)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("residual") / "run"
    run(CONFIG, folder, about={"command": "dcgan train --architecture residual"})
    return folder


def test_a_run_is_loaded_sampled_and_published(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_CHECKPOINTS", str(tmp_path))
    generator = checkpoints.load_generator(trained)
    assert generator.config == TINY and not generator.training
    assert same_bits(generator.state_dict(), {
        name.removeprefix("generator."): value
        for name, value in all_tensors(trained).items()
        if name.startswith("generator.")
    })  # fmt: skip
    folder = checkpoints.publish(trained, "mine")
    card = (folder / "card.md").read_text()
    assert "residual, base width 4, alpha 0.1, norm none, leaky relu, z of 6" in card
    z_bd = sample_latents(5, TINY, seeded(0))
    before, after = (generate_u8(checkpoints.load_generator(f), z_bd) for f in (trained, folder))
    assert before.shape == (5, 1, 8, 8) and before.std() > 0
    assert np.abs(before.astype(int) - after).max() <= 2  # half precision
    assert checkpoints.draw("mine", 4, best_of=2).shape == (4, 1, 8, 8)
    assert names_for_pages() == []


def test_pages_refuse_the_pair_in_one_sentence(trained):
    with pytest.raises(UserError, match="draws convolutional generators, but run is a residual"):
        export_model(trained)
    with pytest.raises(UserError, match="runs convolutional discriminators, but run's is a resid"):
        export_judge(trained)
    with pytest.raises(UserError, match="needs a convolutional discriminator"):
        Judge(str(trained))


def test_a_generator_of_another_kind_is_not_filled_with_its_weights(trained, tmp_path):
    config = json.loads((trained / "config.json").read_text())
    config["config"]["model"]["base_width"] = 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = (trained / "generator.safetensors").read_bytes()
    (tmp_path / "generator.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match="another network"):
        checkpoints.load_generator(tmp_path)


def test_averages_shifts_and_the_penalty_resume_to_the_same_bits(tmp_path):
    config = dataclasses.replace(
        CONFIG, ema_decay=0.9, r1_weight=5.0, d_shift=1, schedule="same_batch"
    )
    run(config, tmp_path / "whole")
    for steps in (3, 6):
        run(dataclasses.replace(config, steps=steps), tmp_path / "parts")
    for place in ("", "ema"):
        whole, parts = (all_tensors(tmp_path / name / place) for name in ("whole", "parts"))
        assert same_bits(whole, parts)
    assert not same_bits(all_tensors(tmp_path / "whole"), all_tensors(tmp_path / "whole" / "ema"))


# --- the R1 penalty ---
def test_r1_of_a_linear_discriminator_is_half_gamma_times_its_squared_weight():
    weight = torch.randn(12, requires_grad=True)
    x_bchw = torch.randn(7, 3, 2, 2).requires_grad_()
    penalty = r1_penalty(x_bchw, x_bchw.flatten(1) @ weight + 3, 10.0)
    torch.testing.assert_close(penalty, 5 * weight.square().sum())
    (gradient,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(gradient, 10 * weight.detach())
    doubled = r1_penalty(x_bchw, 2 * (x_bchw.flatten(1) @ weight), 10.0)
    torch.testing.assert_close(doubled, 4 * penalty)


def test_r1_is_a_mean_over_images_of_a_sum_over_pixels():
    x_bchw = torch.arange(8.0).reshape(2, 1, 2, 2).requires_grad_()
    penalty = r1_penalty(x_bchw, x_bchw.square().sum((1, 2, 3)), 1.0)  # the gradient is 2 x
    torch.testing.assert_close(penalty, (2 * x_bchw).square().sum() / 2 / 2)


def discriminator_after(config: TrainConfig, r1_weight: float):
    """Return D's weights after one update, and the record of it."""
    config = dataclasses.replace(config, r1_weight=r1_weight, schedule="same_batch")
    gan, batches = make_gan(config), Batches(tiny_set(), config, torch.device("cpu"))
    latents = draw_latents(config, gan.device, 0)
    x_bchw = batches(0)[0]
    record = train_step(gan, 0, x_bchw, None, latents, draw_shifts(config, 0))
    assert not x_bchw.requires_grad
    return gan.discriminator.state_dict(), record


@pytest.mark.parametrize("architecture", ["convolutional", "residual"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("d_shift", [0, 2])
def test_r1_changes_the_update_of_both_pairs(architecture, precision, d_shift):
    config = dataclasses.replace(
        CONFIG, model=residual(architecture=architecture), precision=precision, d_shift=d_shift
    )
    with_r1, record = discriminator_after(config, 100.0)
    without, off = discriminator_after(config, 0.0)
    assert off.r1 is None and record.r1 > 0 and torch.equal(off.d_loss, record.d_loss)
    assert not same_bits(with_r1, without)
    assert all(value.isfinite().all() for value in with_r1.values())


def test_r1_makes_the_discriminator_flat_at_real_images():
    """A heavy penalty shrinks the gradient within some updates; one of no weight lets it grow."""
    penalties = []
    for r1_weight in (1000.0, 1e-9):
        config = dataclasses.replace(
            CONFIG, r1_weight=r1_weight, schedule="same_batch", learning_rate=0.01
        )
        gan, batches = make_gan(config), Batches(tiny_set(), config, torch.device("cpu"))
        found = []
        for step in range(40):
            latents = draw_latents(config, gan.device, step)
            found.append(train_step(gan, step, batches(step)[0], None, latents).r1 / r1_weight)
        penalties.append(found[-1] / found[0])
    assert penalties[0] < 0.2 and penalties[1] > 1


def test_without_the_penalty_a_step_asks_for_no_gradient_of_the_images(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(torch.autograd, "grad", fail)
    discriminator_after(CONFIG, 0.0)
    with pytest.raises(AssertionError, match="asked"):
        discriminator_after(CONFIG, 1.0)


def test_the_penalty_is_in_the_log_and_not_in_the_loss(tmp_path):
    config = dataclasses.replace(CONFIG, r1_weight=10.0)
    run(config, tmp_path / "on")
    run(dataclasses.replace(config, r1_weight=0.0), tmp_path / "off")
    on, off = (checkpoints.read_metrics(tmp_path / k / "metrics.jsonl") for k in ("on", "off"))
    assert all(line["r1"] > 0 for line in on) and all("r1" not in line for line in off)
    assert on[0]["d_loss"] == off[0]["d_loss"]  # of the first update, before the penalty acts


def test_a_negative_penalty_is_refused():
    with pytest.raises(UserError, match="r1_weight must be at least 0"):
        TrainConfig(r1_weight=-1)


# --- the experiment ---
SETTINGS = Settings(
    set="blobs", steps=24, base_width=16, batch_size=8, precision="float32", r1_weight=10.0
)


def blobs(num: int, seed: int) -> ImageSet:
    """Coloured squares on a dark ground, 32x32."""
    rng = np.random.default_rng(seed)
    images = np.full((num, 3, 32, 32), 30, np.uint8)
    for image in images:
        top, left = rng.integers(2, 18, 2)
        colour = rng.choice([[220, 40, 40], [40, 220, 40], [40, 40, 220]])
        image[:, top : top + 12, left : left + 12] = colour[:, None, None]
    card = {"splits": {"train": [0, num // 2], "validation": [num // 2, num]}}
    return ImageSet(name="blobs", images_u8=images, card=card)


def some_plan(**changed) -> Plan:
    """Return a plan whose steps take what is easy to count with: 1 second for the plain pair."""
    seconds = {name: 1.0 if name == PLAIN else 2.0 for name in VARIANTS} | {REFERENCE: 4.0}
    return Plan(
        settings=dataclasses.replace(SETTINGS, **changed),
        base_width=dict.fromkeys(VARIANTS, 4),
        parameters=dict.fromkeys(VARIANTS, 1000),
        seconds_a_step=seconds,
        hardware="none",
        channels=3,
    )


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("DCGAN_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


def test_pairs_have_equally_many_parameters():
    for width in (16, 20):
        settings = dataclasses.replace(SETTINGS, base_width=width)
        plain = count_parameters(ModelConfig(image_size=(32, 32), base_width=width))
        for name in VARIANTS:
            found = matching_width(name, settings, 3)
            model = residual_gan.variant_config(name, settings, 3, base_width=found, steps=1).model
            assert abs(count_parameters(model) / plain - 1) <= MOST_APART
    with pytest.raises(UserError, match=r"no width of 'residual' .*choose another base_width"):
        matching_width(REFERENCE, dataclasses.replace(SETTINGS, base_width=13), 3)


def test_variants_differ_from_the_reference_in_what_their_words_say():
    plan = some_plan()
    reference = plan.run(REFERENCE, 0).config
    assert reference.r1_weight == 10 and reference.model.residual_norm == "none"
    assert reference.model.residual_alpha == 0.1
    for name, variant in VARIANTS.items():
        config = plan.run(name, 0).config
        assert ("R1" in variant.words.replace("no R1", "")) == (config.r1_weight > 0)
        assert ("residual" in variant.words) == (config.model.architecture == "residual")
        if config.model.architecture == "residual":
            assert f"alpha {config.model.residual_alpha:g}," in variant.words
            assert config.model.residual_norm.replace("none", "no") + " " in variant.words


def test_every_run_takes_the_time_of_the_plain_one():
    plan = some_plan()
    assert plan.steps[PLAIN] == 24 and plan.steps[REFERENCE] == 6
    assert plan.steps["plain-r1"] == 12 and plan.equal_steps == 6
    run = plan.run(REFERENCE, 1)
    assert run.config.steps == 6 and run.config.seed == 1
    assert list(plan.run(PLAIN, 0).looks) == [3, 6, 12, 18, 24]
    assert run.looks == {step: step for step in (1, 2, 3, 4, 6)}
    slow = dataclasses.replace(plan, seconds_a_step=plan.seconds_a_step | {REFERENCE: 4.8})
    assert list(slow.run("plain-r1", 0).looks) == [2, 3, 5, 6, 9, 12]
    assert "each run: 0.4 minutes; equal steps: 6" in plan_text(plan)


@pytest.fixture(scope="module")
def yardstick():
    features = FeatureExtractor(
        "means", 48, nn.Identity(), lambda x: nn.functional.avg_pool2d(x / 255, 8).flatten(1)
    )
    return Yardstick(blobs(120, 1), features, num_images=60)


def test_a_run_is_measured_at_equal_steps_and_at_its_end(yardstick):
    run = some_plan().run("plain-r1", 0)
    trained = train_run(run, blobs(60, 0))
    found = measure_run(run, trained, yardstick, equal_steps=6)
    assert [look["step"] for look in found["looks"]] == list(run.looks)
    assert found["at_equal_steps"]["step"] == 6 and found["at_equal_time"]["step"] == 12
    early = {step: trained.weights[step] for step in (0, 2)}
    cut = dataclasses.replace(trained, weights=early, stopped=4, windows=[])
    found = measure_run(run, cut, yardstick, equal_steps=6)
    assert found["at_equal_steps"]["step"] == found["at_equal_time"]["step"] == 2
    assert any("no longer finite" in flag for flag in found["flags"])
    json.dumps(found, allow_nan=False)


def keep(plan: Plan, name: str, seed: int, steps: float, time: float, flags=(), **changed):
    looks = {
        "at_equal_steps": {"step": plan.equal_steps, "distance": steps, "diversity": 0.9},
        "at_equal_time": {"step": plan.steps[name], "distance": time, "diversity": 0.8},
    }
    content = {
        "variant": name,
        "seed": seed,
        "settings": plan.about(name) | changed,
        "features": "means",
        "num_images": 60,
        "seconds": 2.0,
        "flags": list(flags),
        **looks,
    }
    save_details(plan.table().place(name, seed), content)


def keep_table(plan: Plan, gain: float = 0.1) -> None:
    """Keep two seeds of the two pairs: residual is nearer by ``gain`` in equal time."""
    save_details(plan_name(plan.settings.set), dataclasses.asdict(plan))
    for seed in range(2):
        keep(plan, PLAIN, seed, 0.5 + seed / 10, 0.3 + seed / 10)
        keep(plan, REFERENCE, seed, 0.6 + seed / 10, 0.3 - gain + (0.1 + gain / 1000) * seed)


def test_differences_are_paired_by_seed(ledger):
    plan = some_plan()
    keep_table(plan)
    keep(plan, "plain-r1", 0, 0.4, 0.4)
    keep(plan, "residual-no-r1", 0, 0.4, 0.4, run_steps=7)  # of another plan: left out
    assert kept_plan("blobs") == plan and kept_plan("nowhere") is None
    runs = kept_runs("blobs")
    assert ("residual-no-r1", 0) not in runs and len(runs) == 5 and kept_runs("nowhere") == {}
    value, low, high = paired_difference(runs, REFERENCE, PLAIN, "at_equal_time")
    assert value == pytest.approx(-0.1, abs=1e-3) and low < value < high < 0
    assert paired_difference(runs, REFERENCE, PLAIN, "at_equal_steps").low > 0.09
    assert paired_difference(runs, "plain-r1", PLAIN, "at_equal_time") is None
    lines = table_text(runs).splitlines()
    assert [line.split()[0] for line in lines[2:]] == [PLAIN, REFERENCE, "plain-r1"]
    assert lines[2].split() == [PLAIN, "0.550", "0.350", "0.800", "0", "of", "2"]
    assert lines[3].split()[1:3] == ["0.650", "+0.100±0.000"] and f"{value:+.3f}±" in lines[3]
    assert lines[4].split()[1:4] == ["0.400", "0.400", "0.800"]  # one seed has no difference


def test_a_missing_seed_hides_no_later_one(ledger):
    plan = some_plan()
    save_details(plan_name("blobs"), dataclasses.asdict(plan))
    keep(plan, PLAIN, 1, 0.5, 0.5)
    keep(plan, REFERENCE, 2, 0.5, 0.5)
    keep(plan, "residual-no-r1", 10, 0.5, 0.5)  # its name begins as the reference's does
    assert list(kept_runs("blobs")) == [(PLAIN, 1), (REFERENCE, 2), ("residual-no-r1", 10)]


def test_each_change_is_said_to_be_nearer_farther_or_neither(ledger):
    plan = some_plan()
    keep_table(plan)  # the residual pair is farther at equal steps, nearer in equal time
    for seed in range(2):
        keep(plan, "plain-r1", seed, 0.5 + seed / 10, 0.3 + seed)
    keep(plan, "residual-no-r1", 0, 0.1, 0.1)
    runs = kept_runs("blobs")
    by_steps, by_time = (
        {
            words: outcome(paired_difference(runs, *pair, budget))
            for words, pair in CONTRASTS.items()
        }
        for budget in BUDGETS
    )
    whole, r1 = next(iter(CONTRASTS)), "R1 in the DCGAN"
    assert by_steps[whole] == "farther" and by_time[whole] == "nearer"
    assert by_steps[r1] == by_time[r1] == "no difference shown"
    assert by_time["R1 in the residual pair"] == "too few runs"  # one seed proves nothing
    line = next(line for line in contrasts_table(runs).splitlines() if line.startswith(r1))
    assert "+0.00 (+0.00 to +0.00); by seed +0.00, +0.00" in line
    assert "no difference shown: +0.45" in line and "by seed +0.00, +0.90" in line
    rows = compared_with_plain(runs, "at_equal_time")
    assert rows["DCGAN"].points == pytest.approx((0.3 / 0.35, 0.4 / 0.35))
    assert rows["DCGAN"].interval is None
    reference = rows[VARIANTS[REFERENCE].words]
    assert reference.note == "nearer" and reference.interval[1] < 1
    assert rows[VARIANTS["residual-no-r1"].words].interval is None  # of one seed


def test_the_claim_is_judged_in_equal_time(ledger):
    plan, command = some_plan(), "dcgan residual --set blobs --record"
    keep_table(plan)
    row = record_claim(kept_runs("blobs"), plan, command)
    assert row.verdict == "met" and row.checks == {CHECK: True} and row.n == 2
    assert "equal steps: residual 0.6500 after 6 steps, plain 0.5500 after 6 steps" in row.notes
    assert "plain 0.3500 after 24 steps" in row.notes and "4.0000" not in row.notes
    assert load_row("residual.plain:blobs") == row
    keep_table(plan, gain=-0.1)
    row = record_claim(kept_runs("blobs"), plan, command)
    assert row.verdict == "missed" and row.caveat is None
    keep(plan, REFERENCE, 1, 0.6, 0.1)
    row = record_claim(kept_runs("blobs"), plan, command)
    assert row.verdict == "not tested at scale" and "2 seeds" in row.caveat.why
    (ledger / "residual" / "blobs" / "residual-1.json").unlink()
    with pytest.raises(UserError, match="needs two finished seeds"):
        record_claim(kept_runs("blobs"), plan, command)


@pytest.fixture
def words(tmp_path, monkeypatch):
    """Return the command on a drawn set, with stub steps of a fixed price."""
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path / "sets"))
    blobs(120, 0).save(tmp_path / "sets" / "prepared" / "blobs")
    prices = {name: 1.0 if name == PLAIN else 4.0 for name in VARIANTS}
    monkeypatch.setattr(residual_gan, "time_steps", lambda *_: dict(prices))
    monkeypatch.setattr(residual_gan, "matching_width", lambda *_: 2)
    line = "residual --set blobs --variants residual --steps 8 --batch-size 8 --num-images 60"
    return [*line.split(), "--out", str(tmp_path / "out")]


@pytest.mark.drives("residual")
def test_a_table_is_made_once_and_recorded(ledger, words, tmp_path, capsys):
    assert cli.main([*words, "--record"]) == 0
    first = capsys.readouterr().out
    folder = ledger / "residual" / "blobs"
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    runs = [f"{name}-{seed}.json" for name in (PLAIN, REFERENCE) for seed in range(2)]
    assert sorted(kept) == sorted(["plan.json", *runs])
    assert "plain, seed 0: distance" in first and "recorded residual.plain:blobs" in first
    run = load_details("residual/blobs/residual-0", "dcgan residual")
    assert run["settings"]["run_steps"] == 2 and run["settings"]["equal_steps"] == 2
    assert run["at_equal_time"] == run["at_equal_steps"] and len(run["losses"]) == 1
    assert "--variants residual" in load_row("residual.plain:blobs").command
    assert (tmp_path / "out" / "blobs" / "plain-0" / "samples.png").is_file()
    (folder / "residual-0.json").unlink()
    trained = tmp_path / "out" / "blobs" / "residual-0" / "run.json"
    before = trained.stat().st_mtime_ns
    assert cli.main(words) == 0
    second = capsys.readouterr().out
    assert "residual, seed 0: distance" in second and "plain, seed 0: distance" not in second
    assert trained.stat().st_mtime_ns == before
    assert (folder / "plain-0.json").stat().st_mtime_ns == kept["plain-0.json"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(kept)


def test_a_mix_of_settings_is_refused(ledger, words, capsys):
    assert cli.main([*words, "--seeds", "1"]) == 0
    assert cli.main([*words, "--seeds", "1", "--steps", "9"]) == 2
    assert "made with other settings" in capsys.readouterr().err
    keep(kept_plan("blobs"), PLAIN, 1, 0.5, 0.5, run_steps=99)
    assert cli.main(words) == 2
    assert "plain-1.json was made with other settings" in capsys.readouterr().err


def test_a_run_that_another_process_holds_is_left_to_it(ledger, words, tmp_path, capsys):
    with exclusive(tmp_path / "out" / "blobs" / "residual-0" / "run.json"):
        assert cli.main([*words, "--seeds", "1"]) == 0
    assert "residual, seed 0: another process has begun it" in capsys.readouterr().out
    assert not (ledger / "residual" / "blobs" / "residual-0.json").exists()


def test_steps_are_timed_by_the_processor_and_the_first_rounds_do_not_count(monkeypatch):
    configs = {
        name: residual_gan.variant_config(name, SETTINGS, 3, base_width=2, steps=4)
        for name in (PLAIN, REFERENCE)
    }
    ticks = iter([0, 9, 0, 9, 0, 9, 0, 9, *[0, 1, 0, 4] * 3])
    monkeypatch.setattr(residual_gan.time, "process_time", lambda: next(ticks))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = residual_gan.time_steps(configs, blobs(20, 0), "cpu", 3)
    finally:
        torch.set_num_threads(threads)
    assert found == {PLAIN: 1, REFERENCE: 4} and next(ticks, None) is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--variants nonsense", "each of --variants must be one of plain, residual"),
        ("--seeds 0", "seeds must be at least 1"),
        ("--seeds 1 --record", "seeds must be at least 2"),
        ("--variants plain-r1 --record", "give both in --variants"),
        ("--r1-weight 0", "r1_weight must be above 0"),
        ("--set nowhere", "no image set or folder 'nowhere'"),
    ],
)
def test_mistakes_are_answered_at_once(more, message, capsys):
    assert cli.main(["residual", *more.split()]) == 2
    assert message in capsys.readouterr().err
