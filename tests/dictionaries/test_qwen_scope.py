"""Qwen Scope's files: by hand, as SAELens' own loader has them, and one of many in a folder."""

import pytest
import torch

from lorascope.dictionaries.files import open_dictionary
from lorascope.errors import InputError

# width 2, four latents; b_dec is far from zero so that taking it off the input would show
BY_HAND = {
    "W_enc": torch.tensor([[1.0, 3.0], [0.0, -1.0], [-2.0, 0.5], [1.0, 1.0]]),
    "W_dec": torch.tensor([[1.0, 0.0, 7.0, 2.0], [2.0, -4.0, 0.25, 0.0]]),
    "b_enc": torch.tensor([0.5, 0.0, 1.0, 0.0]),
    "b_dec": torch.tensor([10.0, -20.0]),
}
RELEASE = "SAE-Res-Qwen3-1.7B-Base-W32K-L0_2"


@pytest.fixture
def release(tmp_path_factory):
    """A release's folder with the files of blocks 0, 2 and 11."""
    folder = tmp_path_factory.mktemp("hub") / RELEASE
    folder.mkdir()
    for layer in (0, 2, 11):
        torch.save(BY_HAND, folder / f"layer{layer}.sae.pt")
    return folder


def test_by_hand(release):
    opened = open_dictionary(release / "layer2.sae.pt")
    x = torch.tensor([[3.0, 0.0], [0.0, -2.0]])
    # pre [3.5, 0, -5, 3] and [-5.5, 2, 0, -2]; two of each row, the positive ones of them
    assert opened.encode(x).tolist() == [[3.5, 0.0, 0.0, 3.0], [0.0, 2.0, 0.0, 0.0]]
    # 3.5·[1, 2] + 3·[2, 0] and 2·[0, -4], plus [10, -20]
    assert opened(x).tolist() == [[19.5, -13.0], [10.0, -28.0]]
    card = opened.card
    assert (card.site, card.model, card.l0) == ("layers.2", "Qwen/Qwen3-1.7B-Base", 2)
    assert (opened.k, card.source) == (2, str(release / "layer2.sae.pt"))
    assert open_dictionary(card.source).card == card


def test_one_of_several_must_be_named(release):
    with pytest.raises(InputError, match=r"holds 3 .*layer0\.sae\.pt, layer2.*, layer11"):
        open_dictionary(release)
    for layer in (2, 11):
        (release / f"layer{layer}.sae.pt").unlink()
    assert open_dictionary(release).card.site == "layers.0"


def test_k_that_no_name_tells_is_asked_for(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    torch.save(BY_HAND, folder / "layer3.sae.pt")
    with pytest.raises(InputError, match=r"k is not known.*\?k=50"):
        open_dictionary(folder / "layer3.sae.pt")
    opened = open_dictionary(f"{folder}/layer3.sae.pt?k=3")
    assert opened.k == 3
    assert open_dictionary(opened.card.source).card == opened.card
    assert open_dictionary(f"{folder}?k=1&site=layers.3").card.site == "layers.3"
    with pytest.raises(InputError, match="k is 5, expected 1 to 4"):
        open_dictionary(f"{folder}?k=5")


def test_what_the_address_says_must_not_contradict_the_name(release):
    assert open_dictionary(f"{release}/layer0.sae.pt?k=2").k == 2
    with pytest.raises(InputError, match="says k is 2 and the address 3"):
        open_dictionary(f"{release}/layer0.sae.pt?k=3")
    with pytest.raises(InputError, match=r"made for layers\.0, and its address says layers\.1"):
        open_dictionary(f"{release}/layer0.sae.pt?site=layers.1")


def test_as_saelens_own_loader_has_it(release, monkeypatch):
    loaders = pytest.importorskip("sae_lens.loading.pretrained_sae_loaders")
    from sae_lens import SAE

    monkeypatch.setattr(
        loaders, "hf_hub_download", lambda repo_id, filename, **_: str(release / filename)
    )
    config, tensors, _ = loaders.qwen_scope_sae_huggingface_loader(
        f"Qwen/{RELEASE}", "layer11.sae.pt", cfg_overrides={"d_in": 2, "d_sae": 4}
    )
    config = loaders.handle_config_defaulting(config)
    theirs = SAE.get_sae_class_for_architecture("topk").from_dict(config)
    theirs.load_state_dict(tensors)
    ours = open_dictionary(release / "layer11.sae.pt")
    x = 3 * torch.randn(30, 2, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours.encode(x), theirs.encode(x))
    torch.testing.assert_close(ours(x), theirs(x))
    assert ours.card.model == config["metadata"]["model_name"]
    assert ours.card.site == config["metadata"]["hook_name"].replace("blocks", "layers")[:9]


def test_another_name_of_the_file(release):
    (release / "layer2.sae.pt").rename(release / "layerx.sae.pt")
    with pytest.raises(InputError, match="expected a name like"):
        open_dictionary(release / "layerx.sae.pt")
