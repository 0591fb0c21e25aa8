"""Files of the PyTorch example: the same pictures and judgements here, and clear refusals.

The example's two networks are built in plain PyTorch, as its main.py has them.
"""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dcgan_lib import cli
from dcgan_lib.errors import UserError
from dcgan_lib.training.checkpoints import load_config, load_discriminator, load_generator
from dcgan_lib.training.pytorch_example import (
    import_pair,
    read_discriminator,
    read_generator,
    read_state_dict,
)

Z_DIM = 100


class ExampleGenerator(nn.Module):
    """As pytorch/examples has it, the names of its parameters included."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        layers = [nn.ConvTranspose2d(Z_DIM, width * 8, 4, 1, 0, bias=False)]
        for factor in (8, 4, 2):
            layers += [nn.BatchNorm2d(width * factor), nn.ReLU(True)]
            shape = (width * factor, width * factor // 2)
            layers += [nn.ConvTranspose2d(*shape, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(width), nn.ReLU(True)]
        layers += [nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False), nn.Tanh()]
        self.main = nn.Sequential(*layers)

    def forward(self, z_bd11: torch.Tensor) -> torch.Tensor:
        return self.main(z_bd11)


class ExampleDiscriminator(nn.Module):
    """The same; its sigmoid is left out where logits are compared."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
        for factor in (1, 2, 4):
            shape = (width * factor, width * factor * 2)
            layers += [nn.Conv2d(*shape, 4, 2, 1, bias=False)]
            layers += [nn.BatchNorm2d(shape[1]), nn.LeakyReLU(0.2)]
        layers += [nn.Conv2d(width * 8, 1, 4, 1, 0, bias=False), nn.Sigmoid()]
        self.main = nn.Sequential(*layers)

    def logits(self, x_bchw: torch.Tensor) -> torch.Tensor:
        return self.main[:-1](x_bchw).flatten()


def lively(network: nn.Module) -> nn.Module:
    """Give every tensor, running statistics included, values of its own, and pictures contrast."""
    rng = torch.Generator().manual_seed(3)
    for value in network.state_dict().values():
        if value.dim() == 4:
            wide = 2 / (value.numel() / value.shape[1]) ** 0.5
            wide /= 20 if value.shape[0] == 1 else 1  # logits of the size that training gives
            value.copy_(torch.randn(value.shape, generator=rng) * wide)
        elif value.dim() == 1:  # batch norm's; a variance must be positive
            value.copy_(torch.rand(value.shape, generator=rng) + 0.5)
    return network.eval()


@pytest.fixture(scope="module")
def thin():
    return lively(ExampleGenerator(4, 3)), lively(ExampleDiscriminator(4, 3))


def save_plain(path: Path, network: nn.Module) -> None:
    torch.save(network.state_dict(), path)


def save_parallel(path: Path, network: nn.Module) -> None:
    torch.save(nn.DataParallel(network).state_dict(), path)


def save_as_if_on_cuda(path: Path, network: nn.Module) -> None:
    """Write the tag that a GPU's tensors carry in a file: the place of each storage."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save(network.state_dict(), path)


def save_legacy(path: Path, network: nn.Module) -> None:
    """Write the format of PyTorch before 1.6, and without the counters that came with 0.4."""
    state = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    torch.save(state, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("width", "channels", "save"),
    [
        (64, 3, save_plain),
        (4, 1, save_plain),
        (4, 3, save_parallel),
        (4, 3, save_as_if_on_cuda),
        (4, 3, save_legacy),
    ],
)
def test_the_same_pictures_and_the_same_judgements(width, channels, save, tmp_path):
    generator = lively(ExampleGenerator(width, channels))
    discriminator = lively(ExampleDiscriminator(width, channels))
    save(tmp_path / "netG.pth", generator)
    save(tmp_path / "netD.pth", discriminator)
    import_pair(tmp_path / "run", tmp_path / "netG.pth", tmp_path / "netD.pth")
    z_bd = torch.randn(5, Z_DIM, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = generator(z_bd[:, :, None, None])
        ours = load_generator(tmp_path / "run")(z_bd)
        their_logits = discriminator.logits(theirs)
        our_logits = load_discriminator(tmp_path / "run")(theirs)
    assert theirs.std() > 0.1 and their_logits.std() > 1e-2, "all alike would prove nothing"
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(our_logits, their_logits, atol=1e-4, rtol=0)


def test_a_kernel_in_another_order_is_another_network(thin, tmp_path):
    """The wrong twin: the projection's cells transposed give other pictures."""
    state = thin[0].state_dict()
    state["main.0.weight"] = state["main.0.weight"].transpose(2, 3)
    torch.save(state, tmp_path / "netG.pth")
    z_bd = torch.randn(2, Z_DIM, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = read_generator(tmp_path / "netG.pth")(z_bd) - thin[0](z_bd[:, :, None, None])
    assert difference.abs().max() > 0.01


def test_the_cuda_file_cannot_be_read_where_it_was_written_for(thin, tmp_path):
    """So the tag is real: without a place to map it to, PyTorch asks for the GPU."""
    if torch.cuda.is_available():
        pytest.skip("this machine has what the file asks for")
    save_as_if_on_cuda(tmp_path / "netG.pth", thin[0])
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(tmp_path / "netG.pth", weights_only=True)


class Intruder:
    def __reduce__(self):
        return Path.touch, (Path("intruder"),)


def bytes_of(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def without_pixels(generator: nn.Module) -> bytes:
    state = generator.state_dict()
    del state["main.12.weight"]
    return bytes_of(state)


def with_layer(generator: nn.Module, name: str, value: torch.Tensor) -> bytes:
    return bytes_of(generator.state_dict() | {name: value})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda g: b"", "cut off, damaged"),
        (lambda g: b"hello, this is a text", "another kind of file"),
        (lambda g: bytes_of(g.state_dict())[:9000], "cut off, damaged"),
        (lambda g: bytes_of(g), "a whole network or code, which is not run"),
        (lambda g: bytes_of({"main.0.weight": Intruder()}), "code, which is not run"),
        (lambda g: pickle.dumps(Intruder(), 2), "code, which is not run"),
        (lambda g: bytes_of({"epoch": 3, "netG": g.state_dict()}), "take the state dict out"),
        (lambda g: bytes_of(g.state_dict()["main.0.weight"]), "holds a Tensor"),
        (lambda g: bytes_of({}), "lacks main.0.weight"),
        (without_pixels, "lacks main.12.weight"),
        (lambda g: with_layer(g, "main.15.weight", torch.ones(1)), "also has main.15"),
        (lambda g: bytes_of(ExampleDiscriminator(4, 3).state_dict()), "but is a discriminator"),
        (lambda g: bytes_of(ExampleGenerator(4, 2).state_dict()), "with 2 channels"),
        (lambda g: with_layer(g, "main.3.weight", torch.ones(32, 9, 4, 4)), "has 4,608 numbers"),
        (lambda g: with_layer(g, "main.4.bias", torch.full((16,), np.nan)), "not finite"),
        (lambda g: with_layer(g, "main.3.weight", torch.ones(3)), "layers are of another kind"),
    ],
)
def test_a_wrong_file_gets_one_sentence(thin, content, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("netG.pth").write_bytes(content(thin[0]))
    assert cli.main(["import-pth", "netG.pth", "--name", "mine"]) == 2
    answer = capsys.readouterr().err
    assert says in answer and "netG.pth" in answer
    assert len(answer.splitlines()) == 1
    assert not Path("runs").exists() and not Path("intruder").exists()


def test_a_torchscript_file_is_named_as_one(thin, tmp_path):
    torch.jit.save(torch.jit.trace(thin[0], torch.zeros(1, Z_DIM, 1, 1)), tmp_path / "netG.pt")
    with pytest.raises(UserError, match="TorchScript"):
        read_state_dict(tmp_path / "netG.pt")
    with pytest.raises(UserError, match="no such file"):
        read_state_dict(tmp_path / "other.pt")


def test_swapped_files_and_unequal_pairs_are_named(thin, tmp_path):
    save_plain(tmp_path / "netG.pth", thin[0])
    save_plain(tmp_path / "wide.pth", ExampleDiscriminator(8, 3))
    with pytest.raises(UserError, match="but is a generator"):
        read_discriminator(tmp_path / "netG.pth")
    with pytest.raises(UserError, match=r"\(4, 3 against 8, 3\)"):
        import_pair(tmp_path / "run", tmp_path / "netG.pth", tmp_path / "wide.pth")
    assert not (tmp_path / "run").exists()


@pytest.mark.drives("import-pth")
def test_an_import_is_sampled_walked_measured_and_trained_further(
    thin, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DCGAN_DATA", str(tmp_path / "data"))
    save_parallel(Path("netG.pth"), thin[0])
    save_plain(Path("netD.pth"), thin[1])
    rng = np.random.default_rng(0)
    Path("photos").mkdir()
    for number in range(80):
        pixels = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{number}.png")
    words = ["import-pth", "netG.pth", "netD.pth", "--name", "mine", "--set", "photos"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    go_on = said[said.index("dcgan train") :].split()[1:]
    go_on = ["photos" if word == "SET" else word for word in go_on]
    model, about = load_config("runs/mine")[0].model, load_config("runs/mine")[1]
    assert model.kernel_size == 4 and model.z_distribution == "normal"
    assert about["image_set"] == "photos" and "imported" in about

    for words_after in (
        "sample runs/mine --num-images 4 --batch-stats",
        "walk runs/mine --anchors 1 2 --frames 3 --out walk.png",
        "evaluate runs/mine --num-images 8 --features pixels",
    ):
        assert cli.main(words_after.split()) == 0
    small = "--steps 1 --batch-size 8 --threads 1 --run-dir further"
    small += " --precision float32 --decay-fraction 0"
    assert cli.main([*go_on, *small.split()]) == 0
    before = load_generator("runs/mine").state_dict()["project.weight"]
    after = load_generator("further").state_dict()["project.weight"]
    assert 0 < (after - before).abs().max() < 1e-3, "one step of Adam from the imported weights"

    # once more in place of the first, never in place of a run
    assert cli.main(words) == 0
    capsys.readouterr()
    assert cli.main([*words[:4], "further", "--out", "."]) == 2
    assert "something other than an earlier import" in capsys.readouterr().err


def test_a_generator_alone_is_sampled_but_not_trained(thin, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_plain(Path("netG.pth"), thin[0])
    assert cli.main(["import-pth", "netG.pth", "--name", "mine"]) == 0
    assert "train it further" not in capsys.readouterr().out
    assert cli.main(["sample", "runs/mine", "--num-images", "2"]) == 0
    assert cli.main(["evaluate", "runs/mine", "--num-images", "2", "--features", "pixels"]) == 2
    assert "unknown" in capsys.readouterr().err
    with pytest.raises(UserError, match="keeps its generator alone"):
        load_discriminator("runs/mine")


def test_a_counter_of_no_layer_is_named(tmp_path):
    theirs = lively(ExampleGenerator(2, 3)).state_dict() | {
        "mahn.7.num_batches_tracked": torch.tensor(1)
    }
    torch.save(theirs, tmp_path / "netG.pth")
    with pytest.raises(UserError, match=r"also has mahn\.7\.num_batches_tracked"):
        read_generator(tmp_path / "netG.pth")
