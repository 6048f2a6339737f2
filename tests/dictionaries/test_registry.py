"""`saelens:release/id`: SAELens' own list, read without the network."""

import importlib.util
import socket

import pytest
import torch

from lorascope.dictionaries import files, registry
from lorascope.dictionaries.files import open_dictionary
from lorascope.errors import InputError

sae_lens = pytest.importorskip("sae_lens", reason="needs the saelens extra")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Looking up must not even try to connect."""

    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def fetched(monkeypatch, tmp_path):
    """Whatever is fetched lies in `tmp_path`; records the place and the files asked for."""
    asked = []

    def fetch(place, names, weights):
        asked.append((str(place), tuple(names), tuple(weights)))
        return tmp_path

    monkeypatch.setattr(registry, "fetch", fetch)
    return asked


def test_an_entry_by_hand():
    found = registry.look_up("saelens:gemma-scope-9b-pt-res-canonical/layer_20/width_16k/canonical")
    assert found.repo == "google/gemma-scope-9b-pt-res"
    assert found.path.startswith("layer_20/width_16k/average_l0_")
    assert (found.conversion, found.model) == ("gemma_2", "gemma-2-9b")
    assert found.neuronpedia == "gemma-2-9b/20-gemmascope-res-16k"


def test_names_almost_right():
    with pytest.raises(
        InputError,
        match=r'no release "gemma-scope-9b-pt-ress"\. Did you mean "gemma-scope-9b-pt-res"\?',
    ):
        registry.look_up("saelens:gemma-scope-9b-pt-ress/layer_20")
    with pytest.raises(
        InputError,
        match=r'release llama_scope_lxr_8x has no id "l15_8x"\. Did you mean "l15\w_8x"\?.* 32 ids',
    ):
        registry.look_up("saelens:llama_scope_lxr_8x/l15_8x")
    with pytest.raises(InputError, match="expected saelens:release/id"):
        registry.look_up("saelens:gpt2-small-res-jb")


def test_without_saelens(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs SAELens.*pip install 'lorascope\[saelens\]'"):
        open_dictionary("saelens:gpt2-small-res-jb/blocks.8.hook_resid_pre")


def test_every_format_of_the_list_that_has_a_reader_is_one_saelens_loads():
    from sae_lens.loading.pretrained_sae_loaders import NAMED_PRETRAINED_SAE_LOADERS

    assert set(registry._FORMATS) - {""} <= set(NAMED_PRETRAINED_SAE_LOADERS)


@pytest.mark.parametrize(
    ("address", "name", "place"),
    [
        (
            "gemma-scope-9b-pt-res/layer_18/width_16k/average_l0_140",
            "gemma_scope",
            "hf://google/gemma-scope-9b-pt-res/layer_18/width_16k/average_l0_140",
        ),
        (
            "gemma-scope-2-1b-pt-res/layer_13_width_16k_l0_big",
            "gemma_scope_2",
            "hf://google/gemma-scope-2-1b-pt/resid_post/layer_13_width_16k_l0_big",
        ),
        (
            "llama_scope_lxr_8x/l15r_8x",
            "llama_scope",
            "hf://fnlp/Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L15R-8x",
        ),
        (
            "gemma-2-2b-res-matryoshka-dc/blocks.5.hook_resid_post",
            "saelens",
            "hf://chanind/gemma-2-2b-batch-topk-matryoshka-saes-w-32k-l0-40/standard/"
            "blocks.5.hook_resid_post",
        ),
        (
            "sae_bench_pythia70m_sweep_gated_ctx128_0730/blocks.3.hook_resid_post__trainer_0",
            "dictionary_learning",
            "hf://canrager/lm_sae/pythia70m_sweep_gated_ctx128_0730/resid_post_layer_3/trainer_0",
        ),
    ],
)
def test_read_with_the_reader_of_its_format(layouts, tmp_path, fetched, address, name, place):
    layouts[name].write(tmp_path)
    opened = open_dictionary(f"saelens:{address}")
    (asked, names, weights) = fetched[0]
    assert asked == place
    assert weights == (layouts[name].weights,)
    assert len(names) <= 6
    assert opened.card.format == name
    assert opened.card.source == f"saelens:{address}"
    assert opened.card.model


def test_the_list_adds_what_the_file_does_not_say(layouts, tmp_path, fetched):
    layouts["llama_scope"].write(tmp_path)
    card = open_dictionary("saelens:llama_scope_lxr_8x/l15r_8x").card
    assert card.neuronpedia == "llama3.1-8b/15-llamascope-res-32k"
    assert card.model == "meta-llama/Llama-3.1-8B"
    assert card.l0 == 50


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        # The canonical entry's id, though two entries name the folder.
        ("layer_20/width_16k/average_l0_68", "gemma-2-9b/20-gemmascope-res-16k"),
        ("layer_20/width_16k/average_l0_138", "gemma-2-9b/20-gemmascope-res-16k__l0-138"),
        ("layer_20/width_16k/average_l0_139", ""),
    ],
)
def test_a_place_on_the_hub_has_its_neuronpedia_id(
    layouts, tmp_path, monkeypatch, inside, expected
):
    layouts["gemma_scope"].write(tmp_path)
    monkeypatch.setattr(files, "fetch", lambda place, names, weights: tmp_path)
    address = f"hf://google/gemma-scope-9b-pt-res/{inside}"
    assert open_dictionary(address).card.neuronpedia == expected
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert open_dictionary(address).card.neuronpedia == ""


def test_trap_a_scale_that_only_the_list_holds_is_folded(layouts, tmp_path, fetched, rows):
    address = "saelens:gemma-2b-res-jb/blocks.12.hook_resid_post"
    factor = registry.look_up(address).factor
    assert 0 < factor < 1
    layouts["saelens"].write(
        tmp_path,
        architecture="standard",
        d_in=5,
        d_sae=9,
        dtype="float32",
        normalize_activations="expected_average_only_in",
        metadata={"sae_lens_version": "6.0.0"},
    )
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    theirs.fold_activation_norm_scaling_factor(factor)
    ours = open_dictionary(address)
    torch.testing.assert_close(ours.encode(rows), theirs.encode(rows))
    torch.testing.assert_close(ours(rows), theirs(rows))
    assert ours.card.note == ""
    # by the folder alone nothing is known of it, and the card says so
    alone = open_dictionary(tmp_path)
    assert not torch.allclose(alone.encode(rows), ours.encode(rows), rtol=0.1)
    assert "holds no scale" in alone.card.note


def test_trap_a_normalisation_that_only_the_list_names_is_refused(layouts, tmp_path, fetched):
    layouts["saelens"].write(tmp_path)
    with pytest.raises(InputError, match="'constant_norm_rescale' changes the input at run time"):
        open_dictionary("saelens:mistral-7b-res-wg/blocks.8.hook_resid_pre")


def test_trap_a_centred_stream_is_noted(layouts, tmp_path, fetched):
    layouts["saelens"].write(tmp_path, hook_name="blocks.8.hook_resid_pre")
    card = open_dictionary("saelens:gpt2-small-res-jb/blocks.8.hook_resid_pre").card
    assert "mean over dimensions TransformerLens had taken off" in card.note
    assert (card.site, card.neuronpedia) == ("layers.7", "gpt2-small/8-res-jb")
    assert open_dictionary(tmp_path).card.note == ""


# Formats that SAELens loads here: the files as they are published, in another size.
THROUGH_SAELENS = {
    "goodfire-llama-3.1-8b-instruct/layer_19": (
        {"encoder": "encoder_linear", "decoder": "decoder_linear"},
        "meta-llama/Llama-3.1-8B-Instruct",
        "layers.19",
    ),
    "deepseek-r1-distill-llama-8b-qresearch/blocks.19.hook_resid_post": (
        {"encoder": "encoder", "decoder": "decoder"},
        "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
        "layers.19",
    ),
}


@pytest.fixture
def published(monkeypatch, tmp_path):
    """SAELens' real loaders, fetching `file` from a folder, for sizes 5 and 9."""
    from sae_lens.loading import pretrained_sae_loaders as loaders

    monkeypatch.setattr(loaders, "hf_hub_download", lambda *_, **__: str(tmp_path / "file"))
    sizes = {"d_in": 5, "d_sae": 9}
    monkeypatch.setattr("sae_lens.saes.sae.get_config_overrides", lambda *_: dict(sizes))
    return tmp_path / "file"


@pytest.mark.parametrize("address", THROUGH_SAELENS)
def test_a_format_without_a_reader_goes_through_saelens(published, rows, address):
    """Its loaders hand over transposed views, which safetensors does not write as they are."""
    names, model, site = THROUGH_SAELENS[address]
    random = torch.Generator().manual_seed(4)
    stored = {
        f"{names['encoder']}.weight": torch.randn(9, 5, generator=random),
        f"{names['encoder']}.bias": torch.randn(9, generator=random),
        f"{names['decoder']}.weight": torch.randn(5, 9, generator=random),
        f"{names['decoder']}.bias": torch.randn(5, generator=random),
    }
    torch.save(stored, published)
    ours = open_dictionary(f"saelens:{address}")
    # by hand: ReLU of x W + b, nothing subtracted
    encoder, bias, decoder, added = (tensor.float() for tensor in stored.values())
    latents = torch.relu(rows @ encoder.T + bias)
    torch.testing.assert_close(ours.encode(rows), latents)
    torch.testing.assert_close(ours(rows), latents @ decoder.T + added)
    assert (ours.card.model, ours.card.site) == (model, site)
    assert ours.card.format.startswith("SAELens' ")


def test_what_saelens_cannot_load(monkeypatch):
    def fail(*_, **__):
        raise OSError("offline\nand a second line")

    monkeypatch.setattr(sae_lens.SAE, "from_pretrained", fail)
    with pytest.raises(InputError, match=r"SAELens cannot load it \(offline\); check the name"):
        open_dictionary(f"saelens:{next(iter(THROUGH_SAELENS))}")


def test_trap_the_model_is_the_one_of_the_list(layouts, tmp_path, fetched):
    """SAELens' loader has another model for these files than SAELens' list."""
    layouts["llamascopium"].write(tmp_path)
    card = open_dictionary("saelens:llama_scope_r1_distill/l0r_800m_slimpajama").card
    assert card.model == "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
    assert card.format == "llamascopium"
    layouts["dictionary_learning"].write(
        tmp_path,
        trainer={"dict_class": "AutoEncoderNew", "layer": 12, "lm_name": "google/gemma-2-9b"},
    )
    entry = "sae_bench_gemma-2-2b_topk_width-2pow12_date-1109/blocks.12.hook_resid_post__trainer_0"
    card = open_dictionary(f"saelens:{entry}").card
    assert card.model == "gemma-2-2b"
    assert "its file names the model google/gemma-2-9b" in card.note


def test_trap_a_release_with_the_model_in_its_name(layouts, tmp_path, monkeypatch):
    """SAELens' list has the base model for the dictionaries of the instruction-tuned one."""
    address = "gemma-scope-9b-it-res/layer_20/width_131k/average_l0_13"
    folder = tmp_path / "models--google--gemma-scope-9b-it-res" / "layer_20" / "average_l0_13"
    layouts["gemma_scope"].write(folder)
    monkeypatch.setattr(registry, "fetch", lambda *_: folder)
    assert registry.look_up(f"saelens:{address}").model == "gemma-2-9b"
    assert open_dictionary(f"saelens:{address}").card.model == "google/gemma-2-9b-it"


def test_trap_the_norm_of_an_r1_file_that_only_the_list_knows(layouts, tmp_path, fetched, rows):
    layout = layouts["llamascopium"]
    (norm,) = [name for name in layout.shapes if name.startswith("dataset")]
    layout.write(tmp_path, {norm: None})
    address = "saelens:llama_scope_r1_distill/l0r_800m_slimpajama"
    factor = registry.look_up(address).factor
    assert factor == pytest.approx(53.53, abs=0.01)
    ours = open_dictionary(address)
    stored = layout.read(tmp_path)
    norms = stored["W_D"].norm(dim=1)
    pre = (factor * rows @ stored["W_E"] + stored["b_E"]) * norms
    threshold = stored["activation_function.log_jumprelu_threshold"].exp()
    latents = pre * (pre > threshold)
    assert 0.1 < (latents > 0).float().mean() < 0.9
    torch.testing.assert_close(ours.encode(rows), latents / factor)
    expected = (latents / norms @ stored["W_D"] + stored["b_D"]) / factor
    torch.testing.assert_close(ours(rows), expected)


def test_a_qwen_scope_release_names_its_file(layouts, tmp_path, fetched):
    layouts["qwen_scope"].write(tmp_path)
    ours = open_dictionary("saelens:qwen-scope-3-1.7b-base-w32k-l50/layer2?k=3")
    assert fetched == [
        ("hf://Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50", ("layer2.sae.pt",), ("layer2.sae.pt",))
    ]
    assert (ours.k, ours.card.site, ours.card.model) == (3, "layers.2", "Qwen/Qwen3-1.7B-Base")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("gemma-scope-2b-pt-transcoders/layer_0/width_16k/average_l0_76", "a transcoder, which"),
        ("mwhanna-qwen3-4b-transcoders/layer_0", "a transcoder, which"),
        ("mntss-gemma-2-2b-2.5m-clt-as-per-layer/layer_0", r"cross-layer transcoder \(CLT\)"),
        ("gemma-scope-2-4b-pt-transcoders-all/layer_0_width_16k_l0_big", "a transcoder, which"),
        ("temporal-sae-gemma-2-2b/blocks.12.hook_resid_post", "a temporal dictionary"),
    ],
)
def test_what_is_no_autoencoder_is_named_before_it_is_fetched(fetched, address, expected):
    with pytest.raises(InputError, match=expected):
        open_dictionary(f"saelens:{address}")
    assert fetched == []


def test_every_entry_of_the_list_is_looked_up_and_named_for_what_it_is():
    """No release is refused for a word in its name, and none of the others is let through."""
    refused = {"transcoder": 0, "clt": 0, "temporal": 0}
    found = 0
    for release, listed in registry._parsed(registry._list_path()).items():
        for one in listed["saes"]:
            entry = registry.look_up(f"saelens:{release}/{one['id']}")
            try:
                registry._refuse_others(entry, release)
                found += 1
                assert not any(word in f"{release} {entry.path}" for word in refused), entry
            except InputError:
                (word, *_) = [w for w in refused if w in f"{release} {entry.path}"]
                refused[word] += 1
    assert found > 1000
    assert all(refused.values())
