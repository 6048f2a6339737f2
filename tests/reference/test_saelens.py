"""Dictionaries pass between this package and SAELens itself with equal latents both ways."""

import json
import math

import pytest
import torch

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.files import open_dictionary, save
from lorascope.dictionaries.gated import GatedDictionary
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.training.architectures import ReLU
from lorascope.training.dictionaries import fit
from lorascope.training.settings import Fitting

sae_lens = pytest.importorskip("sae_lens", reason="needs the saelens extra")

D, N, K = 16, 48, 5
SIZES = {"d_in": D, "d_sae": N}
FACTOR = math.sqrt(D) / 50


@pytest.fixture(scope="module")
def stream():
    """Raw activations with norms near 50, off centre."""
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(500, D, generator=random) + 0.5 * torch.randn(D, generator=random)
    rows = rows * (50 / rows.norm(dim=1).mean())
    assert rows.norm(dim=1).mean() == pytest.approx(50)
    return rows


@pytest.fixture(scope="module")
def fitted(stream):
    """A dictionary of this package's own training, so with a scale that had to be folded in."""
    fitting = Fitting(epochs=60, batch=100, products="float32")
    learned = fit(ReLU(n_latents=N, l1=0.1), stream, fitting=fitting)
    assert learned.card.scale == pytest.approx(50)
    assert (learned(stream) - stream).norm() < 0.5 * stream.norm()
    return learned


def randomise(theirs, seed=1):
    """Every parameter drawn apart, of the size that trained ones have."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            drawn = torch.randn(parameter.shape, generator=random)
            parameter.copy_(drawn.abs() if name == "threshold" else drawn)
    return theirs


def same(ours, theirs, rows):
    """Equal latents and reconstructions, on latents that are neither all silent nor all active."""
    with torch.no_grad():
        latents = theirs.encode(rows)
        density = (latents > 0).float().mean()
        assert 0.02 < density < 0.95, density
        torch.testing.assert_close(ours.encode(rows), latents, rtol=1e-5, atol=1e-4)
        size = theirs(rows).abs().max().item()
        torch.testing.assert_close(ours(rows), theirs(rows), rtol=1e-5, atol=1e-5 * size)


def of_architecture(fitted, architecture, **options):
    parts = dict(fitted.named_buffers())
    spread = torch.linspace(0.5, 20, N)
    if architecture == "jumprelu":
        return JumpReluDictionary(**parts, threshold=spread, **options)
    if architecture == "topk":
        return TopKDictionary(**parts, k=K, **options)
    if architecture == "gated":
        log_scale, magnitude_bias = torch.linspace(-1, 1, N), torch.linspace(3, -3, N)
        return GatedDictionary(
            **parts, log_scale=log_scale, magnitude_bias=magnitude_bias, **options
        )
    return ReluDictionary(**parts, **options)


@pytest.mark.parametrize("architecture", ["relu", "topk", "jumprelu", "gated"])
@pytest.mark.parametrize("subtract_bias", [True, False])
def test_saelens_opens_what_is_written_here(stream, fitted, tmp_path, architecture, subtract_bias):
    ours = of_architecture(fitted, architecture, subtract_bias=subtract_bias)
    ours.card = Card(site="layers.5", model="google/gemma-2-2b", target="delta", scale=50.0)
    save(ours, tmp_path)
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    name = {"relu": "standard"}.get(architecture, architecture)
    assert theirs.cfg.architecture() == name
    assert theirs.cfg.metadata.hook_name == "blocks.5.hook_resid_post"
    same(ours, theirs, stream)
    latents = theirs.encode(stream)
    torch.testing.assert_close(ours.decode(latents), theirs.decode(latents), rtol=1e-5, atol=1e-4)


INFERENCE = {
    "standard": (sae_lens.StandardSAE, sae_lens.StandardSAEConfig, {}),
    "jumprelu": (sae_lens.JumpReLUSAE, sae_lens.JumpReLUSAEConfig, {}),
    "gated": (sae_lens.GatedSAE, sae_lens.GatedSAEConfig, {}),
    "topk": (sae_lens.TopKSAE, sae_lens.TopKSAEConfig, {"k": K}),
    "topk with norms": (
        sae_lens.TopKSAE,
        sae_lens.TopKSAEConfig,
        {"k": K, "rescale_acts_by_decoder_norm": True},
    ),
}


@pytest.mark.parametrize("architecture", INFERENCE)
@pytest.mark.parametrize("apply_b_dec_to_input", [True, False])
def test_what_saelens_writes_is_opened_here(stream, tmp_path, architecture, apply_b_dec_to_input):
    kind, config, options = INFERENCE[architecture]
    theirs = kind(config(**SIZES, **options, apply_b_dec_to_input=apply_b_dec_to_input))
    randomise(theirs)
    theirs.save_model(tmp_path)
    same(open_dictionary(tmp_path), theirs, stream / 10)


def test_trap_topk_selects_by_what_the_decoder_norm_makes_of_it(stream, tmp_path):
    """The norms change the selection, so leaving them out would not go unnoticed above."""
    kind, config, options = INFERENCE["topk with norms"]
    theirs = randomise(kind(config(**SIZES, **options)))
    with_norms = theirs.encode(stream) > 0
    theirs.cfg.rescale_acts_by_decoder_norm = False
    assert (with_norms != (theirs.encode(stream) > 0)).any(dim=1).float().mean() > 0.5


@pytest.mark.parametrize("normalised", ["expected_average_only_in", "layer_norm"])
def test_an_unfolded_scale_is_taken_as_saelens_takes_it(stream, tmp_path, normalised):
    config = sae_lens.StandardSAEConfig(**SIZES, normalize_activations=normalised)
    theirs = randomise(sae_lens.StandardSAE(config))
    theirs.save_model(tmp_path)
    if normalised == "layer_norm":
        # no weights of ours can do what this does to the input
        assert not torch.allclose(theirs.encode(stream), theirs.encode(2 * stream) / 2)
        with pytest.raises(ValueError, match="changes the input at run time"):
            open_dictionary(tmp_path)
    else:
        same(open_dictionary(tmp_path), sae_lens.SAE.load_from_disk(tmp_path), stream)


TRAINING = {
    "standard": (sae_lens.StandardTrainingSAE, sae_lens.StandardTrainingSAEConfig, {}),
    "topk": (sae_lens.TopKTrainingSAE, sae_lens.TopKTrainingSAEConfig, {"k": K}),
    "jumprelu": (sae_lens.JumpReLUTrainingSAE, sae_lens.JumpReLUTrainingSAEConfig, {}),
    "gated": (sae_lens.GatedTrainingSAE, sae_lens.GatedTrainingSAEConfig, {}),
    "batchtopk": (sae_lens.BatchTopKTrainingSAE, sae_lens.BatchTopKTrainingSAEConfig, {"k": K}),
    "batchtopk without norms": (
        sae_lens.BatchTopKTrainingSAE,
        sae_lens.BatchTopKTrainingSAEConfig,
        {"k": K, "rescale_acts_by_decoder_norm": False},
    ),
    "matryoshka": (
        sae_lens.MatryoshkaBatchTopKTrainingSAE,
        sae_lens.MatryoshkaBatchTopKTrainingSAEConfig,
        {"k": K, "matryoshka_widths": [12, 30, N]},
    ),
}


def in_training(name, normalised="none"):
    kind, config, options = TRAINING[name]
    theirs = randomise(kind(config(**SIZES, **options, normalize_activations=normalised)))
    if hasattr(theirs, "topk_threshold"):
        theirs.topk_threshold = torch.tensor(4.5, dtype=torch.double)
    return theirs


@pytest.mark.parametrize("name", TRAINING)
def test_trap_what_training_saves_with_its_scale_folded(stream, tmp_path, name):
    """BatchTopK and Matryoshka are saved as JumpReLU, with the decoder's norms in the threshold."""
    trained = in_training(name, "expected_average_only_in")
    trained.fold_activation_norm_scaling_factor(FACTOR)
    trained.save_inference_model(tmp_path)
    theirs, ours = sae_lens.SAE.load_from_disk(tmp_path), open_dictionary(tmp_path)
    same(ours, theirs, stream)
    assert isinstance(ours, JumpReluDictionary) == ("topk" not in name[:4] and name not in _PLAIN)
    assert ours.card.note == ""


_PLAIN = ("standard", "gated")


@pytest.mark.parametrize("name", TRAINING)
def test_trap_a_checkpoint_holds_its_scale_beside_it(stream, tmp_path, name):
    """An unfolded training checkpoint opens as the dictionary its training would save."""
    trained = in_training(name, "expected_average_only_in")
    trained.save_model(tmp_path / "checkpoint")
    scaler = {"scaling_factor": FACTOR, "has_whitening": False}
    (tmp_path / "checkpoint" / "activation_scaler.json").write_text(json.dumps(scaler))
    trained.fold_activation_norm_scaling_factor(FACTOR)
    trained.save_inference_model(tmp_path / "final")
    same(
        open_dictionary(tmp_path / "checkpoint"),
        sae_lens.SAE.load_from_disk(tmp_path / "final"),
        stream,
    )


@pytest.mark.parametrize("name", ["standard", "topk", "batchtopk"])
def test_folding_leaves_what_it_does_on_raw_rows(stream, tmp_path, name):
    """In training on scaled rows, saved, folded and opened: one dictionary."""
    trained = in_training(name, "expected_average_only_in")
    trained.save_model(tmp_path)
    scaler = {"scaling_factor": FACTOR}
    (tmp_path / "activation_scaler.json").write_text(json.dumps(scaler))
    ours = open_dictionary(tmp_path)
    with torch.no_grad():
        if name == "batchtopk":
            norms = trained.W_dec.norm(dim=1)
            pre = ((FACTOR * stream - trained.b_dec) @ trained.W_enc + trained.b_enc) * norms
            latents = pre * (pre > 4.5)
            expected = trained.decode(latents) / FACTOR
        else:
            expected = trained(FACTOR * stream) / FACTOR
        assert (ours(stream) - ours.decoder_bias).abs().max() > 1
        torch.testing.assert_close(ours(stream), expected, rtol=1e-4, atol=1e-2)
    save(ours, tmp_path / "again")
    again = open_dictionary(tmp_path / "again")
    assert torch.equal(again(stream), ours(stream))
    assert torch.equal(again.encode(stream), ours.encode(stream))


def test_an_older_checkpoint_stores_the_logarithm_of_the_threshold(stream, tmp_path):
    trained = in_training("jumprelu")
    trained.save_model(tmp_path)
    from safetensors.torch import load_file, save_file

    path = tmp_path / "sae_weights.safetensors"
    tensors = load_file(path)
    tensors["log_threshold"] = tensors.pop("threshold").log()
    save_file(tensors, path)
    same(open_dictionary(tmp_path), sae_lens.TrainingSAE.load_from_disk(tmp_path), stream / 10)


OLDER = {
    "3.11": {
        "architecture": "standard",
        "activation_fn_str": "relu",
        "activation_fn_kwargs": {},
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "finetuning_scaling_factor": False,
        "sae_lens_training_version": "3.11.0",
    },
    "2.0": {"hook_point": "blocks.8.hook_resid_pre", "hook_point_layer": 8},
    "5.0 topk": {
        "architecture": "topk",
        "activation_fn": "topk",
        "activation_fn_kwargs": {"k": K},
        "normalize_activations": "none",
    },
    "4.0 topk": {
        "architecture": "standard",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": K},
        "normalize_activations": False,
    },
}


@pytest.mark.parametrize("version", OLDER)
def test_older_configurations_are_read_as_saelens_reads_them(stream, tmp_path, version):
    theirs = randomise(sae_lens.StandardSAE(sae_lens.StandardSAEConfig(**SIZES)))
    theirs.save_model(tmp_path)
    names = {"model_name": "gpt2-small", "hook_name": "blocks.8.hook_resid_pre"}
    config = {**SIZES, "dtype": "float32", "device": "cpu", **names, **OLDER[version]}
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    ours = open_dictionary(tmp_path)
    same(ours, sae_lens.SAE.load_from_disk(tmp_path), stream / 10)
    assert (ours.card.site, ours.card.model) == ("layers.7", "gpt2-small")


def whitening(stream):
    """Mean, matrix and inverse that SAELens estimates from these rows, in float64."""
    from sae_lens.training.activation_scaler import ActivationScaler

    scaler = ActivationScaler()
    scaler.estimate_whitening(D, iter([stream] * 2), n_batches_for_norm_estimate=2)
    return scaler


@pytest.mark.parametrize("name", TRAINING)
@pytest.mark.parametrize("apply_b_dec_to_input", [True, False])
def test_trap_a_whitened_checkpoint_is_folded(stream, tmp_path, name, apply_b_dec_to_input):
    """Whitening is affine, so weights hold it; a checkpoint keeps it in a file beside them."""
    trained = in_training(name, "covariance_whitening")
    if apply_b_dec_to_input is False and not hasattr(trained.cfg, "apply_b_dec_to_input"):
        pytest.skip("always subtracts")
    trained.cfg.apply_b_dec_to_input = apply_b_dec_to_input
    trained.save_model(tmp_path / "checkpoint")
    scaler = whitening(stream)
    scaler.save(str(tmp_path / "checkpoint" / "activation_scaler.json"))
    trained.fold_activation_whitening(
        scaler.whitening.mean, scaler.whitening.matrix, scaler.whitening.inverse_matrix
    )
    trained.save_inference_model(tmp_path / "final")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "final")
    ours = open_dictionary(tmp_path / "checkpoint")
    unfolded = scaler.scale(stream)
    assert (unfolded.mean(0).abs() < 1e-3).all()
    same(ours, theirs, stream)


def test_whitening_of_another_width(stream, tmp_path):
    trained = in_training("standard", "covariance_whitening")
    trained.save_model(tmp_path)
    scaler = whitening(stream)
    scaler.whitening.mean = scaler.whitening.mean[:-1]
    scaler.save(str(tmp_path / "activation_scaler.json"))
    with pytest.raises(ValueError, match=r"mean has shape \(15,\) for a width of 16"):
        open_dictionary(tmp_path)


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("apply_b_dec_to_input", [True, False])
def test_latents_with_a_sign_become_two(stream, tmp_path, rescale, apply_b_dec_to_input):
    config = sae_lens.AbsTopKSAEConfig(
        **SIZES,
        k=K,
        rescale_acts_by_decoder_norm=rescale,
        apply_b_dec_to_input=apply_b_dec_to_input,
    )
    theirs = randomise(sae_lens.AbsTopKSAE(config))
    theirs.save_model(tmp_path)
    ours = open_dictionary(tmp_path)
    with torch.no_grad():
        latents, both = theirs.encode(stream), ours.encode(stream)
        assert 0.2 < (latents < 0).sum() / (latents != 0).sum() < 0.8
        assert (both >= 0).all()
        assert ((both > 0).sum(1) == K).all()
        torch.testing.assert_close(both[:, :N] - both[:, N:], latents, rtol=1e-5, atol=1e-4)
        size = theirs(stream).abs().max().item()
        torch.testing.assert_close(ours(stream), theirs(stream), rtol=1e-5, atol=1e-5 * size)
    assert ours.card.l0 == K
    assert f"latent i + {N} is the negative side" in ours.card.note
    save(ours, tmp_path / "again")
    again = open_dictionary(tmp_path / "again")
    assert torch.equal(again(stream), ours(stream))


@pytest.mark.parametrize("name", ["batchtopk", "matryoshka"])
def test_trap_a_threshold_near_nought_has_its_k_beside_it(stream, tmp_path, name):
    """After short runs the threshold lets far more through than k; k tells that it does."""
    trained = in_training(name)
    trained.topk_threshold = torch.tensor(0.01, dtype=torch.double)
    trained.save_model(tmp_path / "checkpoint")
    trained.save_inference_model(tmp_path / "final")
    assert open_dictionary(tmp_path / "checkpoint").card.l0 == K
    # the saved dictionary is a JumpReLU; only the run's settings beside it keep k
    assert open_dictionary(tmp_path / "final").card.l0 == 0
    (tmp_path / "final" / "runner_cfg.json").write_text(json.dumps({"sae": trained.cfg.to_dict()}))
    opened = open_dictionary(tmp_path / "final")
    assert opened.card.l0 == K
    assert (opened.encode(stream) > 0).sum(1).float().mean() > 2 * K
