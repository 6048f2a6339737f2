"""Models in GGUF files, written here by llama.cpp's own package from tiny models."""

import json
import re
import subprocess
import sys

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize, quantize
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from lorascope.errors import InputError
from lorascope.models.adapted import load
from lorascope.models.gguf_files import gguf_of, quantisation
from lorascope.models.gguf_headers import QuickReader, WordlessReader
from lorascope.models.identity import model_identity
from lorascope.models.load import load_base, read_config, skeleton
from lorascope.models.places import model_address
from lorascope.models.stored import stored_as

NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
IN_BLOCK = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
TEXT = "one two three four five six seven eight nine ten of the best words there are"


def byte_tokenizer():
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([TEXT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A llama with a byte tokenizer, as transformers saves it."""
    folder = tmp_path_factory.mktemp("plain") / "tiny-gguf"
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        bos_token_id=0,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def llama_cpp_order(weight, heads):
    """llama.cpp turns pairs of neighbours where transformers turns halves: rows change places."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def write(plain, path, kind):
    """The same model as llama.cpp's converter writes it, its matrices as `kind`."""
    model, config = AutoModelForCausalLM.from_pretrained(plain), read_config(str(plain))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    parts = json.loads((plain / "tokenizer.json").read_text())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(sorted(parts["vocab"], key=parts["vocab"].get))
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control] * 2 + [normal] * (config.vocab_size - 2))
    writer.add_token_merges([" ".join(pair) for pair in parts["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    for name, tensor in model.state_dict().items():
        values = tensor.numpy()
        target = NAMES.get(name)
        if target is None:
            _, _, block, *inner, ending = name.split(".")
            target = f"blk.{block}.{IN_BLOCK['.'.join(inner)]}.{ending}"
        if ".q_proj." in name:
            values = llama_cpp_order(values, config.num_attention_heads)
        if ".k_proj." in name:
            values = llama_cpp_order(values, config.num_key_value_heads)
        if values.ndim > 1 and kind != gguf.GGMLQuantizationType.F32:
            writer.add_tensor(target, quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(target, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def exact(plain, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exact")
    return write(plain, folder / "tiny-gguf.F32.gguf", gguf.GGMLQuantizationType.F32)


@pytest.fixture(scope="module")
def rounded(plain, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rounded")
    return write(plain, folder / "tiny-gguf.Q8_0.gguf", gguf.GGMLQuantizationType.Q8_0)


def logits(model, tokenizer):
    ids = torch.tensor([tokenizer(TEXT).input_ids])
    with torch.no_grad():
        return model(input_ids=ids).logits


def test_a_file_of_float32_is_the_model_bit_for_bit(plain, exact):
    ours, tokenizer = load_base(str(exact), device="cpu")
    theirs = AutoModelForCausalLM.from_pretrained(plain).eval()
    assert tokenizer(TEXT).input_ids == AutoTokenizer.from_pretrained(plain)(TEXT).input_ids
    assert torch.equal(logits(ours, tokenizer), logits(theirs, tokenizer))
    assert stored_as(str(exact), ours) == ""


def test_names_are_mapped_once(exact, monkeypatch):
    asked, whole = [], gguf.get_tensor_name_map

    def counted(*arguments):
        asked.append(arguments)
        return whole(*arguments)

    monkeypatch.setattr(gguf, "get_tensor_name_map", counted)
    load_base(str(exact), device="cpu")
    assert len(asked) == 1
    assert gguf.get_tensor_name_map is counted


def test_a_rounded_file_gives_the_numbers_that_gguf_gives(plain, rounded):
    ours, tokenizer = load_base(str(rounded), device="cpu")
    theirs = AutoModelForCausalLM.from_pretrained(plain).eval()
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, value in theirs.state_dict().items():
        if value.ndim > 1:
            value = torch.from_numpy(dequantize(quantize(value.numpy(), kind), kind))
        assert torch.equal(ours.state_dict()[name], value), name
    difference = (logits(ours, tokenizer) - logits(theirs, tokenizer)).abs().max()
    assert 0 < difference < 0.1 * logits(theirs, tokenizer).abs().max()
    assert quantisation(rounded).types == {"Q8_0": 16, "F32": 5}
    assert stored_as(str(rounded), ours) == "GGUF: Q8_0 (16 tensors), F32 (5 tensors)"


def test_a_model_from_a_file_can_be_saved_and_copied_without_weights(rounded, tmp_path):
    model, tokenizer = load_base(str(rounded), device="cpu")
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(logits(model, tokenizer), logits(again, tokenizer))
    assert skeleton(model.config) is not None


def test_a_folder_with_one_file_is_that_file_and_with_two_is_refused(exact, rounded, tmp_path):
    assert model_address(str(exact.parent)) == str(exact.parent)
    assert load_base(str(exact.parent), device="cpu")[0].config.hidden_size == 64
    for path in (exact, rounded):
        (tmp_path / path.name).symlink_to(path)
    with pytest.raises(InputError, match=r"holds 2 GGUF files .*give the one you mean"):
        model_address(str(tmp_path))


def test_weights_beside_a_file_come_first(plain, exact):
    (plain / "also.gguf").symlink_to(exact)
    try:
        assert gguf_of(str(plain)) is None
    finally:
        (plain / "also.gguf").unlink()


def test_dtype_holds_for_a_file(exact):
    model, _ = load_base(str(exact), device="cpu", dtype="bfloat16")
    assert model.dtype == torch.bfloat16


def test_what_a_file_holds_is_what_identifies_it(plain, exact, rounded, tmp_path):
    (tmp_path / "other-name.gguf").write_bytes(exact.read_bytes())
    same = model_identity(str(tmp_path / "other-name.gguf"))
    assert same == model_identity(str(exact)) == model_identity(str(exact.parent))
    assert same != model_identity(str(rounded))
    assert same != model_identity(str(plain))


def test_an_adapter_of_the_plain_model_goes_on_its_file(plain, exact, rounded, tmp_path):
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        tuned = get_peft_model(
            AutoModelForCausalLM.from_pretrained(plain), LoraConfig(r=2, target_modules=["q_proj"])
        )
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.data += 0.1
    tuned.save_pretrained(tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    held = json.loads(config.read_text())
    config.write_text(json.dumps({**held, "base_model_name_or_path": "someone/Tiny-GGUF"}))
    for path in (exact, rounded):
        model = load(str(path), {"a": str(tmp_path / "adapter")}, device="cpu")
        assert model.adapters == ("a",)
    config.write_text(json.dumps({**held, "base_model_name_or_path": "someone/else"}))
    with pytest.raises(InputError, match="was made for"):
        load(str(exact), {"a": str(tmp_path / "adapter")}, device="cpu")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda folder: folder / "missing.gguf", "does not exist"),
        (lambda folder: folder / "noise.gguf", "is no GGUF file"),
        (lambda folder: folder / "part-00001-of-00003.gguf", "one of 3 parts"),
        (lambda folder: folder / "cut.gguf", "cannot be loaded"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(make, what, exact, tmp_path):
    (tmp_path / "noise.gguf").write_bytes(b"nothing of the kind")
    (tmp_path / "part-00001-of-00003.gguf").write_bytes(exact.read_bytes())
    (tmp_path / "cut.gguf").write_bytes(exact.read_bytes()[:5000])
    with pytest.raises(InputError, match=what) as caught:
        read_config(str(make(tmp_path)))
    assert "\n" not in str(caught.value)


def test_without_the_package_it_is_named(exact, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'lorascope\[gguf\]'"):
        read_config(str(exact))


def test_a_file_has_no_fewer_bits(exact):
    with pytest.raises(InputError, match="is a GGUF file"):
        load_base(str(exact), device="cpu", dtype="nf4")


SILENT = """
import sys
from lorascope import cli
cli.main()
from lorascope.models.load import load_base
print(load_base(sys.argv[2], device="cpu")[0].device)
"""


def test_a_command_reads_a_file_without_the_bar_of_a_library(exact):
    """A bar for every tensor would stand between the command's own, under --quiet too."""
    line = [sys.executable, "-c", SILENT, "--version", str(exact)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("cpu\n")
    assert "de-quantizing" not in done.stderr


def test_headers_are_read_as_gguf_reads_them(exact, rounded):
    for path in (exact, rounded):
        theirs, ours, wordless = (
            kind(path) for kind in (gguf.GGUFReader, QuickReader, WordlessReader)
        )
        assert list(ours.fields) == list(theirs.fields) == list(wordless.fields)
        for name, field in theirs.fields.items():
            assert ours.fields[name].contents() == field.contents()
            assert ours.fields[name].types == field.types
            words = field.types == [gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING]
            assert wordless.fields[name].contents() == ([] if words else field.contents())
        for one in (ours, wordless):
            assert [(t.name, t.tensor_type, t.data_offset) for t in one.tensors] == [
                (t.name, t.tensor_type, t.data_offset) for t in theirs.tensors
            ]
    assert len(ours.fields["tokenizer.ggml.tokens"].contents()) > 100


def test_a_header_that_ends_early_is_refused(exact, tmp_path):
    whole = exact.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: whole.index(b"tokenizer.ggml.merges") + 60])
    for kind in (QuickReader, WordlessReader):
        with pytest.raises(ValueError, match="ends after the file"):
            kind(cut)
    with pytest.raises(InputError, match=re.escape("cut.gguf")):
        load_base(str(cut))
