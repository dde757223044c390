import hashlib
import io
import json
import zipfile
from copy import deepcopy
from pathlib import Path

import generators
import pytest
import torch

from tomogan_bluesky.config import DEFAULT_MODEL
from tomogan_bluesky.errors import ModelError, ModelNotFoundError
from tomogan_bluesky.models import artifact, files, formats
from tomogan_bluesky.models.artifact import (
    export_model,
    load_generator,
    load_model,
)
from tomogan_bluesky.models.base import channels_last
from tomogan_bluesky.models.files import model_sha256, shipped_models
from tomogan_bluesky.models.generator import Generator, build_generator
from tomogan_bluesky.models.unets import UNet

CARD = generators.CARD.model_copy(update={"metrics": {"psnr_db": 30.5}})


@pytest.fixture
def generator():
    torch.manual_seed(3)
    generator = build_generator("unet4", base=4)
    torch.nn.init.normal_(generator.body.head.weight)
    return generator


@pytest.fixture
def exported(generator, tmp_path):
    path = tmp_path / "test.ts"
    export_model(generator, CARD, path)
    return path


def altered(path, change):
    """Rewrite each member of the archive with `change(name, content)`."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content))


def with_card(path, **changes):
    def change(name, content):
        if not name.endswith("card.json"):
            return content
        return json.dumps(json.loads(content) | changes).encode()

    altered(path, change)


def test_what_is_loaded_is_what_was_exported(generator, exported):
    module, card = load_model(exported)
    x, noise = 0.01 * torch.rand(2, 1, 35, 48), torch.tensor([1e-3, 2e-3])
    eager = deepcopy(generator).eval()
    channels_last(eager)  # as what is loaded
    with torch.inference_mode():
        for _ in range(3):  # TorchScript compiles anew after the first calls
            assert torch.equal(module(x, noise), eager(x, noise))
    assert card.model_dump(exclude={"weights_sha256"}) == CARD.model_dump(
        exclude={"weights_sha256"}
    )
    assert len(card.weights_sha256) == 64
    assert model_sha256(exported) == hashlib.sha256(exported.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def exported_graph(tmp_path_factory):
    """A network, and its file of torch.export. The smallest one: tracing takes seconds."""
    torch.manual_seed(3)
    generator = build_generator("msd", layers=3, depth=3)
    torch.nn.init.normal_(generator.body.head.weight)
    path = tmp_path_factory.mktemp("graph") / "test.pt2"
    card = CARD.model_copy(update={"network": "msd(layers=3, depth=3)", "depth": 3})
    return generator, export_model(generator, card, path), path


@pytest.mark.parametrize("size", [(40, 40), (33, 47), (1, 1)])
def test_a_graph_of_torch_export_is_the_network_too(exported_graph, size):
    generator, card, path = exported_graph
    module, found = load_model(path)
    assert found == card
    eager = deepcopy(generator).eval()
    channels_last(eager)  # as what is loaded
    x, noise = 0.01 * torch.rand(1, 3, *size), torch.tensor([1e-3])
    with torch.no_grad():
        assert torch.equal(module(x, noise), eager(x, noise))
    again, _ = load_generator(path)
    assert all(torch.equal(v, generator.state_dict()[k]) for k, v in again.state_dict().items())


def test_a_graph_is_right_for_sizes_that_it_was_not_traced_for():
    """It is traced where the image has to be extended: it need not be."""
    head, bottom = torch.nn.Conv2d(2, 1, 1), torch.nn.Conv2d(2, 2, 3, padding=1)
    body = UNet(torch.nn.Identity(), 1, (2,), bottom, (2,), head)
    generator = Generator(body, depth=1, multiple=2, residual=False, reach=9).eval()
    module, _ = formats.read(formats.to_exported(generator, "{}"), "cpu")
    for size in ((8, 8), (7, 8), (8, 7), (2, 2), (1, 1)):
        x, noise = 0.01 * torch.rand(1, 1, *size), torch.tensor([1e-3])
        with torch.no_grad():
            assert torch.equal(module(x, noise), generator(x, noise))


def test_both_formats_hold_the_same_weights(exported_graph, tmp_path):
    generator, card, _ = exported_graph
    scripted = export_model(generator, card, tmp_path / "test.ts")
    assert scripted.weights_sha256 == card.weights_sha256


def test_what_gives_other_results_than_the_network_is_not_written(generator, exported, monkeypatch):
    before = exported.read_bytes()
    good = artifact.to_torchscript

    def other(_, card):
        wrong = build_generator("unet4", base=4)
        wrong.load_state_dict(generator.state_dict())
        wrong.residual = False
        return good(wrong, card)

    monkeypatch.setattr(artifact, "to_torchscript", other)
    with pytest.raises(ModelError, match="48 x 64 pixels they differ by .* nothing was replaced"):
        export_model(generator, CARD, exported)
    assert exported.read_bytes() == before
    assert [p.name for p in exported.parent.iterdir()] == ["test.ts"]


def test_a_model_is_trained_further_from_its_file(generator, exported):
    again, card = load_generator(exported)
    assert card.network == "unet4(base=4)"
    assert all(torch.equal(v, generator.state_dict()[k]) for k, v in again.state_dict().items())
    with_card(exported, network="unet4(base=8)")
    with pytest.raises(ModelError, match=r"network of this version, got unet4\(base=8\)"):
        load_generator(exported)


def test_export_leaves_the_generator_alone(generator, tmp_path):
    generator.train()
    before = {k: v.clone() for k, v in generator.state_dict().items()}
    export_model(generator, CARD, tmp_path / "test.ts")
    assert generator.training
    assert all(torch.equal(v, before[k]) for k, v in generator.state_dict().items())
    assert [p.name for p in tmp_path.iterdir()] == ["test.ts"]


def test_path_may_be_a_string(exported):
    assert load_model(str(exported))[1].name == CARD.name


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ModelNotFoundError, match=f"'nobody'.*{DEFAULT_MODEL}") as caught:
        load_model("nobody")
    assert isinstance(caught.value, FileNotFoundError)


def test_unknown_path(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"no model file at .*absent\.ts"):
        load_model(tmp_path / "absent.ts")
    with pytest.raises(ModelError, match="can't be read"):
        load_model(tmp_path)


def test_a_name_is_never_a_file_of_the_working_directory(exported, tmp_path, monkeypatch):
    """TorchScript is code: a file that happens to lie around is not run for its name."""
    monkeypatch.chdir(tmp_path)
    exported.rename(tmp_path / "nobody")
    with pytest.raises(ModelNotFoundError, match="no model is called 'nobody'"):
        load_model("nobody")
    assert load_model(tmp_path / "nobody")[1].name == CARD.name


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 neither"])
def test_corrupt_file(content, tmp_path):
    path = tmp_path / "bad.ts"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"bad\.ts: expected a TorchScript or torch.export file"):
        load_model(path)


def test_truncated_file(exported):
    exported.write_bytes(exported.read_bytes()[:-2000])
    with pytest.raises(ModelError, match="expected a TorchScript or torch.export file"):
        load_model(exported)


def test_file_without_a_card(generator, tmp_path):
    path = tmp_path / "plain.ts"
    with formats.without_deprecation():
        torch.jit.save(torch.jit.script(generator), str(path))
    with pytest.raises(ModelError, match="expected a model card inside"):
        load_model(path)


def test_other_format_version(exported):
    with_card(exported, format_version=99, package_version="7.0")
    with pytest.raises(ModelError, match=r"expected format version 1, got 99.*7\.0"):
        load_model(exported)


def test_card_with_a_wrong_field(exported):
    with_card(exported, units="1/cm")
    with pytest.raises(ModelError, match="not valid"):
        load_model(exported)


def test_altered_weights(exported):
    with_card(exported, weights_sha256="0" * 64)
    with pytest.raises(ModelError, match="expected weights with sha256 000.*altered"):
        load_model(exported)


def test_shipped_models_are_what_was_recorded():
    assert DEFAULT_MODEL in shipped_models()
    for name, sha256 in shipped_models().items():
        assert model_sha256(name) == sha256
        _, card = load_model(name)
        assert card.name == name
        assert card.outputs == ("denoised", "uncertainty")


def test_damaged_installation(monkeypatch):
    monkeypatch.setattr(files, "shipped_models", lambda: {DEFAULT_MODEL: "0" * 64})
    with pytest.raises(ModelError, match="damaged: install the package again"):
        load_model(DEFAULT_MODEL)


def test_a_model_file_tells_nothing_of_where_it_was_made(generator):
    content = formats.to_torchscript(generator, "{}")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        inside = b"".join(map(archive.read, archive.namelist()))
    for module in (torch, formats):
        assert str(Path(module.__file__).parent).encode() not in inside
    assert formats.to_torchscript(generator, "{}") == content
