"""Settings: strict at every level, the same in and out, and one hash that every field changes."""

import copy
import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from lorascope.config import Settings, digest, override, read_yaml
from lorascope.errors import InputError
from lorascope.studies.audit.study import AuditStudy
from lorascope.workflows.settings import TrainStudy

STUDIES = {
    "adapters given": (
        AuditStudy,
        {
            "model": "embedded",
            "adapters": {"r4": "a/b"},
            "sites": ["layers.1"],
            "texts": {"sources": ["embedded"]},
            "dictionaries": {"base": {"layers.1": "hf://a/b/c"}},
        },
    ),
    "adapters trained": (
        AuditStudy,
        {
            "model": "embedded",
            "train": {},
            "sites": ["layers.1"],
            "texts": {"sources": ["embedded"]},
        },
    ),
    "training": (TrainStudy, {}),
}
# the only other value a field takes, where "one more" or "another word" will not do
OTHERS = {
    "store": "float32",
    "template": "plain",
    "strengths": [0.0, 3.0],
    "ranks": [3],
    "dtype": "float16",
    "device": "cpu",
    "device_map": "balanced",
    "products": "float32",
    "massive": "whiten",
    "match": "spectrum",
    "targets": ["q_proj"],
    "base": {"layers.1": "given"},
    "documents": 7,
    "target_l0": 9.0,
    "angles_k": [8],
    "seen": ["given"],
    "sites": ["layers.7"],
    "start": "isotropic",
    "bias": "median",
    "seeds": [3, 4],
    "controls": ["shuffled"],
    "ablation": {
        "setting": "l1",
        "values": [0.1, 0.2],
        "epochs": None,
        "adapter": None,
        "site": None,
    },
    "balance": {"categories": ["a"], "probe": 1, "held_out": 1},
    "held_out": 0.35,
}
# fields with a single possible value, or none without another field
FIXED = {"architecture.architecture", "reading.kinds"}


def study(which):
    cls, data = STUDIES[which]
    return cls.parse(data, "here")


def leaves(data, path=()):
    """Paths of every value that is no mapping with keys of its own."""
    for key, value in data.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def changed(value, key):
    """Another valid value of the same kind."""
    if key in OTHERS:
        return OTHERS[key]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.9 + 0.003
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list):
        return [*value, value[-1] + 1 if value and isinstance(value[-1], int) else "given"]
    assert value is None, f"say in OTHERS what else {key} may be"
    return "given"


def with_change(plain, path):
    altered = copy.deepcopy(plain)
    level = altered
    for key in path[:-1]:
        level = level[key]
    level[path[-1]] = changed(level[path[-1]], path[-1])
    return altered


def every_change(which):
    plain = study(which).plain()
    for path in leaves(plain):
        # giving both adapters and training, or neither, is refused: see the test of its own
        if path in {("adapters",), ("train",)} or ".".join(path[-2:]) in FIXED:
            continue
        yield ".".join(path), with_change(plain, path)


@pytest.mark.parametrize("which", STUDIES)
def test_every_field_counts(which):
    cls = STUDIES[which][0]
    digests = {study(which).digest()}
    names = []
    for name, data in every_change(which):
        altered = cls.parse(data, name)
        assert altered.plain() == data, name
        digests.add(altered.digest())
        names.append(name)
        assert len(digests) == len(names) + 1, f"{name} does not change the hash"
    assert len(names) > 12


def test_the_hash_is_of_the_values_not_of_their_order():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": [1, 2]}) != digest({"a": [2, 1]})
    assert digest({"a": 1}) != digest({"a": "1"})


@pytest.mark.parametrize("which", STUDIES)
def test_yaml_out_is_the_same_settings_in(which, tmp_path):
    settings = study(which)
    (tmp_path / "study.yaml").write_text(settings.yaml(), encoding="utf-8")
    again = type(settings).read(tmp_path / "study.yaml")
    assert again == settings
    assert again.digest() == settings.digest()
    assert yaml.safe_load(settings.yaml()) == settings.plain()


def test_settings_do_not_change():
    settings = study("adapters given")
    with pytest.raises(ValidationError, match="frozen"):
        settings.seed = 3
    with pytest.raises(ValidationError, match="frozen"):
        settings.capture.context = 3


UNKNOWN = {
    "sead": (
        3,
        r'x\.yaml: unknown key "sead"\. Did you mean "seed"\? Known here: ablation, adapters',
    ),
    "capture.contxt": (
        64,
        r'unknown key "capture\.contxt"\. Did you mean "context"\? Known here: batch_tok',
    ),
    "dictionaries.fitting.epoch": (
        3,
        r'unknown key "dictionaries\.fitting\.epoch"\. Did you mean "epochs"\? Known here: batch',
    ),
    "train.training.rnks": ([4], r'unknown key "train\.training\.rnks"\. Did you mean "ranks"\?'),
    "measures.zzz": (1, r'unknown key "measures\.zzz"\. Known here: angles_k, '),
}


@pytest.mark.parametrize("key", UNKNOWN)
def test_an_unknown_key_is_refused_at_every_level(key):
    value, message = UNKNOWN[key]
    data = override(STUDIES["adapters trained"][1], [f"{key}={value}"])
    with pytest.raises(InputError, match=message) as caught:
        AuditStudy.parse(data, "x.yaml")
    assert "\n" not in str(caught.value)


class Inner(Settings):
    depth: int = 1


class Outer(Settings):
    listed: tuple[Inner, ...] = ()
    named: dict[str, Inner] | None = None
    perhaps: Inner | None = None


@pytest.mark.parametrize(
    "data",
    [{"listed": [{"dept": 1}]}, {"named": {"a": {"dept": 1}}}, {"perhaps": {"dept": 1}}],
)
def test_suggestions_reach_into_lists_mappings_and_options(data):
    with pytest.raises(InputError, match=r'unknown key ".*dept"\. Did you mean "depth"\?'):
        Outer.parse(data, "here")


def test_missing_and_wrong_values_name_their_key():
    given = STUDIES["adapters given"][1]
    lacking = {key: value for key, value in given.items() if key != "model"}
    with pytest.raises(InputError, match='here: "model" is missing; add it'):
        AuditStudy.parse(lacking, "here")
    with pytest.raises(InputError, match=r'here: "capture\.context" is 3; give 8 or more'):
        AuditStudy.parse({**given, "capture": {"context": 3}}, "here")
    with pytest.raises(InputError, match=r"here: give either adapters .* not both"):
        AuditStudy.parse({**given, "train": {}}, "here")
    with pytest.raises(InputError, match=r'here: "dictionaries": seeds \[1, 1\] repeat'):
        AuditStudy.parse({**given, "dictionaries": {"seeds": [1, 1]}}, "here")


def test_overrides_by_hand():
    data = {"a": 1, "deep": {"x": 1, "y": 2}, "empty": None}
    result = override(
        data,
        ["a=2.5", "deep.x=[1, two]", "deep.z.w=true", "empty.k=1e-3", " b =text", "c=", "d=x=y"],
    )
    assert result == {
        "a": 2.5,
        "deep": {"x": [1, "two"], "y": 2, "z": {"w": True}},
        "empty": {"k": "1e-3"},
        "b": "text",
        "c": None,
        "d": "x=y",
    }
    assert data == {"a": 1, "deep": {"x": 1, "y": 2}, "empty": None}


def test_overrides_reach_the_settings_with_their_types(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(STUDIES["adapters trained"][1]))
    settings = AuditStudy.read(
        path, ["train.training.rate=1e-3", "sites=[layers.2, layers.3]", "capture.context=32"]
    )
    assert settings.train is not None
    assert settings.train.training.rate == 0.001
    assert settings.sites == ("layers.2", "layers.3")
    assert settings.capture.context == 32


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("seed", "--set seed: expected key=value, as in --set seed=1"),
        ("=3", "--set =3: expected key=value"),
        ("a=[1", r"--set a=\[1: not valid YAML"),
        ("a.b=1", "--set a.b=1: a holds a value, not further keys"),
    ],
)
def test_overrides_that_make_no_sense(assignment, message):
    with pytest.raises(InputError, match=message):
        override({"a": 1}, [assignment])


def test_files_that_are_no_settings(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read \(No such file"):
        read_yaml(tmp_path / "none.yaml")
    for content, message in {
        "a: 1\nb: [1, 2\nc: 3\n": r"a\.yaml, line 3: not valid YAML",
        "- a\n- b\n": r"a\.yaml: expected keys and values at the top level",
        "": r"a\.yaml: expected keys and values",
    }.items():
        (tmp_path / "a.yaml").write_text(content)
        with pytest.raises(InputError, match=message) as caught:
            read_yaml(tmp_path / "a.yaml")
        assert "\n" not in str(caught.value)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"b\.yaml.*: not valid YAML"):
        read_yaml(Path(tmp_path / "b.yaml"))


def test_settings_of_several_kinds_are_named_as_they_are_written():
    from lorascope.studies.audit.study import Dictionaries

    def problem(**architecture):
        with pytest.raises(InputError) as caught:
            Dictionaries.parse({"architecture": architecture}, "s.yaml")
        return str(caught.value)

    assert 'unknown key "architecture.n_latnts". Did you mean "n_latents"?' in problem(
        architecture="topk", n_latnts=8
    )
    assert "resample" not in problem(architecture="topk", n_latnts=8)
    assert "there is no 'topkk'" in problem(architecture="topkk", n_latents=8)
    assert 'Did you mean "topk"?' in problem(architecture="topkk", n_latents=8)
    assert '"architecture": k 9 must be below n_latents 8' in problem(
        architecture="topk", n_latents=8, k=9
    )
    assert '"architecture.n_latents" is missing' in problem(architecture="gated")
    # without a name it is the paper's own
    assert (
        Dictionaries.parse({"architecture": {"n_latents": 8}}, "").architecture.plain()[
            "architecture"
        ]
        == "relu"
    )


@pytest.mark.parametrize(
    ("setting", "meant"),
    [
        ("dtype=bf16", "bfloat16"),
        ("dtype=floatt32", "float32"),
        ("device=gpu", "There are: auto, cpu, cuda"),
        ("device=cuda:x", "cuda:1"),
        ("device_map=balance", "balanced"),
        ("capture.store=bfloat", "bfloat16"),
        ("dictionaries.fitting.products=bf16", "bfloat16"),
        ("dictionaries.fitting.rate=.inf", "finite"),
        ("dictionaries.architecture.n_latents=true", '"n_latents" is true'),
        ("dictionaries.seeds=[0, true]", '"seeds" is true'),
        ("measures.pursuit=yes please", "\"pursuit\" is 'yes please'; give true or false"),
        ("force=1", '"force" is 1; give true or false'),
    ],
)
def test_settings_with_known_values_are_closed(setting, meant):
    _, given = STUDIES["adapters given"]
    with pytest.raises(InputError, match=re.escape(meant)) as caught:
        AuditStudy.parse(override(given, [setting]), "x")
    assert "\n" not in str(caught.value)


def test_numbers_in_the_notations_of_yaml_are_still_taken():
    _, given = STUDIES["adapters given"]
    study = AuditStudy.parse(override(given, ["dictionaries.fitting.rate=1e-3"]), "x")
    assert study.dictionaries.fitting.rate == 0.001
    assert AuditStudy.parse({**given, "device": "cuda:3"}, "x").device == "cuda:3"


@pytest.mark.parametrize("name", ["layer.5", "layers.", "blocks.5.hook_resid_pre", "given"])
def test_a_study_refuses_a_site_that_is_no_blocks_output(name):
    plain = study("adapters given").plain()
    with pytest.raises(InputError, match=f'site "{name}" is not the output of a block'):
        AuditStudy.parse({**plain, "sites": ["layers.1", name]}, "a study")
    spelt = ["5", "model.layers.6", "blocks.7.hook_resid_post"]
    assert AuditStudy.parse({**plain, "sites": spelt}, "a study").sites == tuple(spelt)


@pytest.mark.parametrize(
    ("setting", "wrong"),
    [
        ("seed=x", "\"seed\" is 'x'; give a whole number"),
        ("seed=1.5", '"seed" is 1.5; give a whole number'),
        (
            "dictionaries.fitting.rate=much",
            "\"dictionaries.fitting.rate\" is 'much'; give a number",
        ),
        ("model=3", '"model" is 3; give text'),
        ("model=null", '"model" is null; give text'),
        ("sites=layers.1", "\"sites\" is 'layers.1'; give a list"),
        ("sites=[]", '"sites" is []; give a list of at least 1'),
        ("sites=[layers.1, 3]", '"sites.1" is 3; give text'),
        ("texts=here", "\"texts\" is 'here'; give keys and values"),
        ("capture=[]", '"capture" is []; give keys and values'),
        ("controls.null_adapters=-1", '"controls.null_adapters" is -1; give 0 or more'),
        ("texts.held_out=2", '"texts.held_out" is 2; give less than 1'),
        (
            "ablation={setting: l1, values: [-1, 2]}",
            'ablation.values: "l1" is -1; give more than 0',
        ),
        ("name=a b", "\"name\" is 'a b'; give text that matches"),
        # Of several kinds that a value may have, all are named and none is taken for a key.
        ("adapters.a=3", '"adapters.a" is 3; give text or a list'),
        ("dictionaries.base={layers.1: 3}", '"dictionaries.base.layers.1" is 3; give text'),
        (
            "dictionaries.architecture=relu",
            "\"dictionaries.architecture\" is 'relu'; give keys and",
        ),
    ],
)
def test_a_value_of_the_wrong_kind_or_size_is_told_in_one_way(setting, wrong):
    _, given = STUDIES["adapters given"]
    with pytest.raises(InputError, match=re.escape(f"a study: {wrong}")):
        AuditStudy.parse(override(given, [setting]), "a study")


# Hardly any setting takes one of these.
WRONG = (None, -(10**9), 10**30, 0.5, "", "no such", [], [None], {}, {"no": 1}, object())


def _settings_classes(cls=Settings):
    for below in cls.__subclasses__():
        yield below
        yield from _settings_classes(below)


def test_no_setting_is_refused_in_the_words_of_a_library():
    """Every field of every settings class, given whatever it does not take."""
    assert AuditStudy in set(_settings_classes())
    refused = 0
    for cls in {one for one in _settings_classes() if one.__module__.startswith("lorascope.")}:
        for name in cls.model_fields:
            for value in WRONG:
                try:
                    cls.parse({name: value}, "here")
                except InputError as error:
                    refused += 1
                    said = str(error)
                    assert not re.search(r"Input should|[Tt]uple|dictionary or|valid \w+$", said)
                    assert "pydantic" not in said
                    assert "\n" not in said
    assert refused > 1000
