"""Exported networks: batch norm folded, coarse weights within their limits, JavaScript against
PyTorch."""

import base64
import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from node import needs_node, run_js
from safetensors.torch import load_file

from dcgan_lib.config import ModelConfig
from dcgan_lib.data.load import load_image_set
from dcgan_lib.errors import UserError
from dcgan_lib.models.dcgan import Discriminator, Generator
from dcgan_lib.models.networks import new_discriminator
from dcgan_lib.models.sampling import from_u8, generate_u8, logits_of, refresh_batch_norm
from dcgan_lib.paths import checkpoints_root
from dcgan_lib.training.checkpoints import load_discriminator, load_generator
from dcgan_lib.widgets import export
from dcgan_lib.widgets.export import (
    export_generator,
    export_model,
    fold,
    run_exported,
    script_text,
    stored_samples,
    stored_weights,
    write_script,
)
from dcgan_lib.widgets.latents import seed_latent

COMMITTED = export.names_for_pages()
SMALL = {"z_dim": 6, "base_width": 3}
VARIANTS = [  # every option at least once, odd and unequal sides among them
    ModelConfig(**SMALL, image_size=(16, 16)),
    ModelConfig(
        **SMALL, image_size=(17, 13), kernel_size=3, num_channels=1, z_distribution="normal"
    ),
    ModelConfig(**SMALL, image_size=(13, 18), kernel_size=4, projection_bn="channel"),
    ModelConfig(**SMALL, image_size=(16, 20), kernel_size=3, convs_per_stage=2, num_classes=3),
    ModelConfig(
        **SMALL,
        image_size=(28, 28),
        num_channels=1,
        num_classes=10,
        hidden_units=12,
        bn_affine=False,
        output="sigmoid",
    ),
    ModelConfig(**SMALL, image_size=(9, 8), num_stages=1, hidden_units=5, bn_eps=1e-8),
    ModelConfig(
        z_dim=5,
        base_width=9,
        image_size=(15, 15),
        convs_per_stage=2,
        projection_bn="channel",
        num_classes=2,
    ),
    ModelConfig(z_dim=1, base_width=1, image_size=(8, 32), kernel_size=4, num_classes=1),
]


def generator_of(config: ModelConfig, seed: int = 0) -> Generator:
    """Make a generator with weights large enough for contrast and batch-norm statistics that are
    not 0 and 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = Generator(config)
        for name, parameter in generator.named_parameters():
            torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.3)
    refresh_batch_norm(generator, num_batches=4, batch_size=16)
    return generator.eval()


def latents_and_labels(config: ModelConfig, num: int = 4) -> tuple[np.ndarray, np.ndarray | None]:
    labels_n = np.arange(num) % config.num_classes if config.num_classes else None
    return np.stack([seed_latent(seed, config) for seed in range(num)]), labels_n


def by_torch(generator: Generator, z_nd: np.ndarray, labels_n: np.ndarray | None) -> np.ndarray:
    labels = None if labels_n is None else torch.from_numpy(labels_n)
    return generate_u8(generator, torch.from_numpy(z_nd), labels).astype(int)


def exact(monkeypatch, generator: Generator, precision: str = "half") -> export.ExportedModel:
    monkeypatch.setattr(export, "NUM_CHECKED", 8)
    return export_generator(generator, "tiny", precision)


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_folded_batch_norm_gives_the_same_pictures(config, monkeypatch):
    generator = generator_of(config)
    exported = exact(monkeypatch, generator)
    z_nd, labels_n = latents_and_labels(config)
    apart = np.abs(run_exported(exported, z_nd, labels_n) - by_torch(generator, z_nd, labels_n))
    assert apart.max() <= 2 and apart.mean() <= 0.1  # half precision of random weights
    assert len(fold(generator)) == len(generator.convs) + 1 + bool(config.hidden_units)


def test_other_statistics_of_batch_norm_are_seen(monkeypatch):
    """The wrong twin: weights that were folded with statistics that the generator no longer has."""
    generator = generator_of(VARIANTS[0])
    exported, (z_nd, _) = exact(monkeypatch, generator), latents_and_labels(generator.config)
    generator.norms[0].running_mean += 1
    apart = np.abs(run_exported(exported, z_nd) - by_torch(generator, z_nd, None))
    assert apart.mean() > 5


def by_node(
    folder, exported: export.ExportedModel, z_nd: np.ndarray, labels_n: np.ndarray | None
) -> np.ndarray:
    about = exported.about | {"weights": base64.b64encode(exported.weights).decode()}
    z_n = [[float(value) for value in z_d] for z_d in z_nd]
    given = {
        "about.json": about,
        "z.json": z_n,
        "labels.json": labels_n.tolist() if labels_n is not None else [],
    }
    code = (
        "const about = read('about.json'), labels = read('labels.json');\n"
        "const network = new Generator(about, fromBase64(about.weights));\n"
        "const draw = (z, i) => [...network.run(Float32Array.from(z), labels[i] ?? 0)];\n"
        "answer(read('z.json').map(draw));\n"
    )
    height, width = exported.config.image_size
    rgba = np.array(run_js(folder, code, files=given)).reshape(len(z_nd), height, width, 4)
    assert (rgba[..., 3] == 255).all()
    return rgba[..., : exported.config.num_channels].transpose(0, 3, 1, 2)


@needs_node
@pytest.mark.parametrize("config", VARIANTS, ids=str)
@pytest.mark.parametrize("precision", ["int8", "half"])
def test_javascript_draws_what_numpy_draws(config, precision, monkeypatch, tmp_path):
    monkeypatch.setattr(
        export, "LIMITS", dict.fromkeys(export.LIMITS, (255, 255))
    )  # keep int8 even where it is coarse
    exported = exact(monkeypatch, generator_of(config), precision)
    assert exported.precision == precision
    z_nd, labels_n = latents_and_labels(config)
    apart = np.abs(
        by_node(tmp_path, exported, z_nd, labels_n)
        - run_exported(exported, z_nd, labels_n).astype(int)
    )
    assert apart.max() <= 1 and (apart > 0).mean() < 0.01  # a value at .5 may fall to either side


@needs_node
@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    size=st.tuples(st.integers(8, 24), st.integers(8, 24)),
    kernel=st.sampled_from([3, 4, 5]),
    convs=st.sampled_from([1, 2]),
    classes=st.integers(0, 3),
    hidden=st.sampled_from([0, 4]),
    output=st.sampled_from(["tanh", "sigmoid"]),
    norm=st.sampled_from(["unit", "channel"]),
    width=st.integers(1, 9),
)
def test_javascript_draws_any_network(
    size, kernel, convs, classes, hidden, output, norm, width, tmp_path
):
    config = ModelConfig(
        image_size=size,
        kernel_size=kernel,
        convs_per_stage=1 if kernel == 4 else convs,
        num_classes=classes,
        hidden_units=hidden,
        output=output,
        projection_bn=norm,
        base_width=width,
        z_dim=4,
        num_channels=1,
    )
    with pytest.MonkeyPatch.context() as patch:
        generator = generator_of(config)
        exported, (z_nd, labels_n) = exact(patch, generator), latents_and_labels(config)
    apart = np.abs(
        by_node(tmp_path, exported, z_nd, labels_n) - by_torch(generator, z_nd, labels_n)
    )
    assert apart.max() <= 2 and apart.mean() <= 0.1


@needs_node
def test_silenced_maps_are_zero(monkeypatch, tmp_path):
    generator = generator_of(VARIANTS[0])
    exported, z_nd = exact(monkeypatch, generator), latents_and_labels(VARIANTS[0])[0][:1]
    about = exported.about | {"weights": base64.b64encode(exported.weights).decode()}
    code = (
        "const about = read('about.json');\n"
        "const network = new Generator(about, fromBase64(about.weights));\n"
        "const cut = { layer: 1, off: [0, 2] };\n"
        "const rgba = network.run(Float32Array.from(read('z.json')), 0, cut);\n"
        "answer([...rgba.filter((_, i) => i % 4 < 3)]);\n"
    )
    seen = run_js(tmp_path, code, files={"about.json": about, "z.json": z_nd[0].tolist()})
    generator.convs[1].register_forward_pre_hook(
        lambda _, given: given[0].index_fill(1, torch.tensor([0, 2]), 0)
    )
    expected = by_torch(generator, z_nd, None)[0].transpose(1, 2, 0).ravel()
    assert np.abs(np.array(seen) - expected).max() <= 2


# --- what is committed ---
@pytest.mark.parametrize(
    ("name", "precision"), list(itertools.product(COMMITTED, ["int8", "half"]))
)
def test_committed_generators_keep_the_promised_error(name, precision):
    exported, config = export_model(name, precision), load_generator(name).config
    z_nd = np.stack(
        [seed_latent(seed, config) for seed in range(70_000, 70_064)]
    )  # none of those that chose the precision
    labels_n = np.arange(64) % config.num_classes if config.num_classes else None
    apart = np.abs(
        run_exported(exported, z_nd, labels_n) - by_torch(load_generator(name), z_nd, labels_n)
    )
    assert apart.mean() <= 1 and apart.max() <= (1 if exported.precision == "half" else 6)
    assert set(exported.about["error"]) == {"mean", "max", "pictures"}


def test_int8_gives_way_where_it_would_be_coarse(monkeypatch):
    generator = generator_of(VARIANTS[0])
    found = {}
    for most in (255, -1):
        monkeypatch.setattr(
            export, "LIMITS", export.LIMITS | {"int8": (255, most), "mixed": (255, most)}
        )
        exported = exact(monkeypatch, generator, "int8")
        found[exported.precision] = {entry["type"] for entry in exported.about["layers"]}
    assert found == {"int8": {"int8"}, "half": {"half"}}
    monkeypatch.setattr(export, "LIMITS", export.LIMITS | {"mixed": (255, 255)})
    exported = exact(monkeypatch, generator, "int8")
    kinds = [entry["type"] for entry in exported.about["layers"]]
    assert exported.precision == "mixed" and kinds == ["int8", "int8", "half"]


def test_weights_lie_where_the_page_looks(monkeypatch):
    exported = exact(monkeypatch, generator_of(VARIANTS[4]))
    for entry in exported.about["layers"]:
        weight, bias = stored_weights(exported, entry)
        assert entry["weight"] % 4 == entry["bias"] % 4 == 0
        assert np.isfinite(weight).all() and len(bias) == entry["outputs"]
    assert [entry.get("inputs") for entry in exported.about["layers"]][:2] == [6, 12]


def test_script_is_one_assignment(monkeypatch, tmp_path):
    exported = exact(monkeypatch, generator_of(VARIANTS[0]))
    text = write_script(exported, tmp_path / "deep" / "tiny.js").read_text()
    start, end = '(window.dcganModels ||= {})["tiny"] = ', ";\n"
    assert text == script_text(exported) and text.startswith(start) and text.endswith(end)
    about = json.loads(text.removeprefix(start).removesuffix(end))
    assert base64.b64decode(about["weights"]) == exported.weights and about["precision"] == "half"


def test_stored_pictures_come_in_order():
    name = next(
        name for name in COMMITTED if list((checkpoints_root() / name / "samples").glob("*.webp"))
    )
    found = stored_samples(checkpoints_root() / name)
    assert [row["step"] for row in found] == sorted(row["step"] for row in found) and found
    assert all(row["picture"].startswith("data:image/webp;base64,") for row in found)
    assert "samples" not in export_model(name, "half").about


def test_wrong_requests_are_refused():
    with pytest.raises(UserError, match="'int8' or 'half'"):
        export_generator(generator_of(VARIANTS[0]), "tiny", "int4")
    with pytest.raises(UserError, match="no checkpoint"):
        export_model("nothing")


@pytest.mark.parametrize("name", ["mnist", "mnist-conditional"])
@pytest.mark.filterwarnings("error::UserWarning")
def test_onnx_draws_the_same(name, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    assert export.write_onnx(name, tmp_path / "model.onnx") < 1e-4


def test_onnx_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install onnx onnxscript onnxruntime$"):
        export.write_onnx("mnist", tmp_path / "mnist.onnx")


# --- the discriminator ---
def discriminator_of(config: ModelConfig, seed: int = 0) -> Discriminator:
    """Make a discriminator with statistics of its own, whose probabilities are far from 0 and 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        discriminator = Discriminator(config)
        for name, parameter in discriminator.named_parameters():
            torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.1)
        x_u8 = torch.randint(0, 256, (32, config.num_channels, *config.image_size))
        labels_n = torch.arange(32) % config.num_classes if config.num_classes else None
        for _ in range(3):
            discriminator.train()(from_u8(x_u8, config), labels_n)
    return discriminator.eval()


def pictures_and_labels(config: ModelConfig, num: int = 6) -> tuple[np.ndarray, np.ndarray | None]:
    rng = np.random.default_rng(3)
    shape = (num, config.num_channels, *config.image_size)
    labels_n = np.arange(num) % config.num_classes if config.num_classes else None
    return rng.integers(0, 256, shape, dtype=np.uint8), labels_n


def opinions(
    discriminator: Discriminator, x_u8: np.ndarray, labels_n: np.ndarray | None = None
) -> np.ndarray:
    labels = None if labels_n is None else torch.from_numpy(labels_n)
    return export.probabilities(logits_of(discriminator, x_u8, labels))


def judged_by_node(
    folder, exported: export.ExportedModel, x_u8: np.ndarray, labels_n: np.ndarray | None = None
) -> np.ndarray:
    about = exported.about | {"weights": base64.b64encode(exported.weights).decode()}
    labels = labels_n.tolist() if labels_n is not None else []
    pixels = x_u8.transpose(0, 2, 3, 1).reshape(len(x_u8), -1).tolist()
    code = (
        "const about = read('about.json'), labels = read('labels.json');\n"
        "const network = networkOf(about, fromBase64(about.weights));\n"
        "const judge = (pixels, i) => network.probability(pixels, labels[i] ?? 0);\n"
        "answer(read('pixels.json').map(judge));\n"
    )
    files = {"about.json": about, "pixels.json": pixels, "labels.json": labels}
    return np.array(run_js(folder, code, files=files))


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_a_folded_discriminator_has_the_same_opinion(config):
    discriminator = discriminator_of(config)
    exported = export.export_discriminator(discriminator, "tiny")
    x_u8, labels_n = pictures_and_labels(config)
    exact = opinions(discriminator, x_u8, labels_n)
    assert np.ptp(exact) > 0.001, "the pictures must differ for the test to say anything"
    apart = np.abs(export.judge_exported(exported, x_u8, labels_n) - exact)
    assert apart.max() <= 1 / 255 and exported.about["error"]["max"] <= 1


def test_a_discriminator_with_other_statistics_is_seen():
    """The wrong twin: folded with statistics that the discriminator no longer has."""
    discriminator = discriminator_of(VARIANTS[0])
    exported = export.export_discriminator(discriminator, "tiny")
    discriminator.norms[1].running_mean += 1
    x_u8, _ = pictures_and_labels(VARIANTS[0])
    apart = np.abs(export.judge_exported(exported, x_u8) - opinions(discriminator, x_u8))
    assert apart.max() > 2 / 255


@needs_node
@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_javascript_judges_what_pytorch_judges(config, tmp_path):
    discriminator = discriminator_of(config)
    exported = export.export_discriminator(discriminator, "tiny")
    x_u8, labels_n = pictures_and_labels(config)
    seen = judged_by_node(tmp_path, exported, x_u8, labels_n)
    assert np.abs(seen - opinions(discriminator, x_u8, labels_n)).max() <= 1 / 255
    by_numpy = export.judge_exported(exported, x_u8, labels_n)
    assert np.abs(seen - by_numpy).max() <= 1e-4


@needs_node
@pytest.mark.parametrize("name", ["mnist", "portraits"])
def test_committed_discriminators_keep_the_promised_error(name, tmp_path):
    """On 200 pictures that did not measure the error: generated, drawn, and noise."""
    generator, discriminator = load_generator(name), load_discriminator(name)
    config = generator.config
    z_nd = np.stack([seed_latent(seed, config) for seed in range(70_000, 70_080)])
    generated_u8 = generate_u8(generator, torch.from_numpy(z_nd))
    drawn = "portraits" if name == "portraits" else "street-digits"
    drawn_u8 = load_image_set(drawn, "test", num_images=80).images_u8[:80]
    drawn_u8 = drawn_u8[:, : config.num_channels]
    noise_u8, _ = pictures_and_labels(config, 40)
    x_u8 = np.concatenate([generated_u8, drawn_u8, noise_u8])
    exact = opinions(discriminator, x_u8)
    seen = judged_by_node(tmp_path, export.export_judge(name), x_u8)
    print(f"{name}: at most {255 * np.abs(seen - exact).max():.3f} of 255 levels, n {len(x_u8)}")
    assert len(x_u8) == 200 and np.ptp(exact) > 0.5
    assert np.abs(seen - exact).max() <= 1 / 255


def test_a_dense_discriminator_is_refused():
    config = ModelConfig(architecture="dense", image_size=(8, 8), num_stages=1, hidden_units=4)
    with pytest.raises(UserError, match="convolutional discriminators, but tiny's is a dense one"):
        export.export_discriminator(new_discriminator(config), "tiny")
    with pytest.raises(UserError, match=r"has no discriminator\.safetensors"):
        export.export_judge("mnist-conditional")


def test_the_command_writes_a_discriminator_under_its_own_name(tmp_path, capsys):
    export.Export(checkpoint="mnist", out=tmp_path, discriminator=True).run()
    told = capsys.readouterr().out
    assert told.startswith(f"{tmp_path / 'mnist-discriminator.js'}: ") and "probabilities" in told
    start = '(window.dcganModels ||= {})["mnist-discriminator"] = '
    assert (tmp_path / "mnist-discriminator.js").read_text().startswith(start)
    with pytest.raises(UserError, match="neither --onnx nor --samples"):
        export.Export(checkpoint="mnist", out=tmp_path, discriminator=True, onnx=True).run()


# --- plain weights ---
@pytest.mark.parametrize("discriminator", [False, True])
def test_weights_are_a_plain_state_dict(tmp_path, discriminator, capsys):
    export.Export(checkpoint="mnist", out=tmp_path, weights=True, discriminator=discriminator).run()
    name = "mnist-discriminator" if discriminator else "mnist"
    load = load_discriminator if discriminator else load_generator
    expected, found = load("mnist").state_dict(), load_file(tmp_path / f"{name}.safetensors")
    assert f"{len(expected)} tensors" in capsys.readouterr().out
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype and torch.equal(found[key], value)
    with pytest.raises(UserError, match="neither --onnx nor --samples"):
        export.Export(checkpoint="mnist", out=tmp_path, weights=True, onnx=True).run()


# --- where it is written ---
def test_a_folder_takes_the_script_under_the_checkpoints_name(tmp_path, capsys):
    export.Export(checkpoint="mnist", out=tmp_path, precision="half").run()
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'mnist.js'}: ")
    assert "dcganModels" in (tmp_path / "mnist.js").read_text()


def test_a_place_that_cannot_be_written_is_named_in_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "wall").write_text("")
    command = export.Export(checkpoint="mnist", out=tmp_path / "wall" / "x.js", precision="half")
    with pytest.raises(UserError, match=r"cannot write .*x\.js"):
        command.run()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*No space left"):
        export.Export(checkpoint="mnist", out=tmp_path, precision="half").run()
    assert [path.name for path in tmp_path.iterdir()] == ["wall"], "nothing half written stays"
