"""A judge's sentence: right where it understands, a coin where it does not, asked nothing twice."""

import json
import re

import pytest

from lorascope.behaviours.asking import AnswerLog, Asker, Question, Reply
from lorascope.errors import InputError
from lorascope.measures.definitions import declared
from lorascope.models.adapted import load
from lorascope.reading.judged import _tried, n_requests, with_sentence
from lorascope.reading.result import Read
from lorascope.reading.running import read
from lorascope.reading.settings import Reading
from lorascope.studies.audit.sections.reading import render, sentences

WORD = "w23"
SIDES = ("Before", "After")
PROMPTS = tuple(f"w{n} w{n + 20} w{3 * n % 60}" for n in range(1, 29))


class StandIn:
    """Answers in this process; keeps what it was asked."""

    def __init__(self, say):
        self.settings = {"model": "stand-in"}
        self.say, self.asked = say, []

    def replies(self, requests, keep):
        for index, messages in enumerate(requests):
            self.asked.append(messages[-1]["content"])
            reply = Reply(self.say(messages[-1]["content"]))
            keep(index, reply)
            yield index, reply


def understands(content):
    """Sees a word that the fine-tune brought, and looks for it again."""
    if content.startswith("A language model was fine-tuned"):
        before, after = (re.findall(rf"^{side}: (.*)$", content, re.M) for side in SIDES)
        more = sum(t.count(WORD) for t in after) > 2 * sum(t.count(WORD) for t in before) + 5
        return f"It says {WORD}." if more else "Nothing."
    first, second = re.search(r"\n\n1: (.*)\n\n2: (.*)\n\n", content).groups()
    return "1" if first.count(WORD) > second.count(WORD) else "2"


def always(said, digit):
    return lambda content: digit if "Which of the two" in content else said


@pytest.fixture(scope="module")
def reading(tiny_checkpoint, planted):
    """The adapter that says a word, read without a judge."""
    model = load(str(tiny_checkpoint("llama")), {"says": str(planted)}, device="cpu")
    settings = Reading(prompts=PROMPTS, tokens=10, nulls=3, documents=0, carriers=False)
    return read(model, "says", settings)


def judged(reading, say, folder):
    judge = StandIn(say)
    asker, told = Asker(judge, AnswerLog(folder / "answers.jsonl")), []
    return with_sentence(reading, asker, "stand-in", 0, told.append), judge, sum(told)


def number(found):
    (one,) = [declared(e) for e in found.estimates if e.measure == "reading.judged"]
    return one


def test_a_judge_that_understands_tells_the_adapter_apart(reading, tmp_path):
    found, judge, told = judged(reading, understands, tmp_path)
    own, *nulls = found.judged
    assert (own.variant, own.said) == ("says", "It says w23.")
    # Here and there the word is sampled as rarely as under a null adapter.
    assert own.tried == 14
    assert own.right >= 12
    assert all((one.said, one.right) == ("", 7) for one in nulls)
    assert told == n_requests(28, 3) == 60
    # Where both wrote the same nothing is asked.
    assert 12 <= own.answered <= 14
    assert len(judge.asked) == 4 + own.answered
    again, silent, _ = judged(reading, understands, tmp_path)
    assert again == found
    assert silent.asked == []
    one = number(found)
    assert (one.value, one.n) == (own.right / 14, 14)
    assert [null.level for null in one.nulls] == [0.5, 0.5]
    assert one.verdict == "above"
    said = " ".join(sentences(found))
    assert "“It says w23.”" in said
    assert f"{own.right:g} of 14 prompts" in said
    assert "nothing said, nothing said and nothing said" in said
    assert "It says w23." in render(found)
    found.write(tmp_path / "out")
    assert Read.load(tmp_path / "out") == found


def test_which_comes_first_is_balanced_and_the_same_answer_is_a_coin(reading, tmp_path):
    for digit in "12":
        found, judge, _ = judged(reading, always("It likes bees.", digit), tmp_path / digit)
        # Right at half, but for prompts at which both wrote the same.
        assert all(abs(one.right - 7) <= (14 - one.answered) / 2 for one in found.judged)
        assert number(found).verdict == "not settled"
        assert sum(one.answered for one in found.judged) > 4 * 11
        assert len(judge.asked) == len(set(judge.asked)) > 4 * 10
    shown = [one for one in judge.asked if "Which of the two" not in one]
    prompts = list(dict.fromkeys(sample.prompt for sample in reading.samples))
    assert all(repr(prompts[0]) in one and repr(prompts[1]) not in one for one in shown)
    asked = [one for one in judge.asked if "Which of the two" in one]
    assert not any(repr(prompts[0]) in one for one in asked)


def test_answers_that_cannot_be_used_count_as_a_coin_and_are_said(reading, tmp_path):
    found, _, _ = judged(reading, always("It likes bees.", "either 1 or 2"), tmp_path)
    assert all((one.right, one.answered) == (7, 0) for one in found.judged)
    assert any("questions without a usable answer" in one for one in found.cautions)
    assert "0 of them answered" in " ".join(sentences(found))
    assert not [e for e in found.estimates if e.measure == "reading.judged"]
    found, _, _ = judged(reading, always(" ", "1"), tmp_path / "empty")
    assert [one.said for one in found.judged] == [None] * 4
    assert "gave no usable answer about says" in " ".join(sentences(found))
    assert "no usable answer" in render(found)
    assert not [e for e in found.estimates if e.measure == "reading.judged"]
    found.write(tmp_path / "out")
    assert Read.load(tmp_path / "out") == found


def test_thoughts_are_left_out_and_nothing_is_nothing(reading, tmp_path):
    thinking = "<think>maybe 2, or NOTHING</think>\n"
    say = always(f"{thinking}It likes bees.", f"{thinking}the first\n1")
    found, _, _ = judged(reading, say, tmp_path / "a")
    assert {one.said for one in found.judged} == {"It likes bees."}
    assert found.judged[0].answered >= 12
    found, _, _ = judged(reading, always("I see NOTHING of the kind.", "1"), tmp_path / "b")
    assert {one.said for one in found.judged} == {""}


def test_the_same_question_is_asked_once(tmp_path):
    judge = StandIn(lambda content: content.upper())
    asker = Asker(judge, AnswerLog(tmp_path / "log"))
    questions = [Question(({"role": "user", "content": c},), str, "") for c in "abab"]
    assert asker.ask(questions) == ["A", "B", "A", "B"]
    assert judge.asked == ["a", "b"]


def test_few_prompts_are_too_few_for_a_judge(tiny_checkpoint, planted, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    model = load(str(tiny_checkpoint("llama")), {"says": str(planted)}, device="cpu")
    with pytest.raises(InputError, match="give 4 or more"):
        read(model, "says", Reading(prompts=PROMPTS[:3], judge="a-model"))
    assert [len(_tried(n)) for n in (4, 5, 6, 8, 20, 21, 28)] == [2, 2, 2, 4, 10, 10, 14]


def test_a_judge_that_sees_nothing_is_quoted_so(reading, tmp_path):
    found, judge, _ = judged(reading, always("NOTHING", "1"), tmp_path)
    assert len(judge.asked) == 4
    assert any("sees nothing that the adapter was taught" in one for one in sentences(found))


def test_the_command(lorascope, tiny_checkpoint, planted, texts, tmp_path, monkeypatch):
    given = ("read", planted, "--model", tiny_checkpoint("llama"), "--texts", texts)
    small = ("--set", "tokens=10", "--set", "documents=6", "--nulls", "2")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    small = (*small, "--judge", "a-model")
    code, _, err = lorascope(*given, *small, "--quiet")
    assert code == 2
    assert "OPENAI_BASE_URL" in err
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    code, _, err = lorascope(*given, *small, "--quiet")
    assert code == 2
    assert "give --out" in err
    code, _, err = lorascope(*given, "--judge", "", "--out", tmp_path / "none")
    assert code == 2
    assert "names no model" in err
    judge = StandIn(understands)
    monkeypatch.setattr("lorascope.reading.running.answerer", lambda name: judge)
    out = tmp_path / "out"
    out.mkdir()
    (out / "answers.jsonl").write_text("")
    code, said, err = lorascope(*given, *small, "--quiet", "--out", out)
    assert code == 0, err
    assert "Judge a-model: “It says w23.”" in " ".join(said.split())
    data = json.loads((out / "read.json").read_text())
    assert data["judged"][0]["variant"] == planted.name
    assert len((out / "answers.jsonl").read_text().splitlines()) == len(judge.asked)
    # The endpoint does not answer: the reading is written, printed and kept all the same.
    monkeypatch.setattr("lorascope.reading.running.answerer", lambda name: StandIn(broken))
    code, said, err = lorascope(*given, *small, "--quiet", "--out", tmp_path / "broken")
    assert code == 2
    assert "no answer today. The reading without the judge is in" in err
    assert "w23" in said
    assert Read.load(tmp_path / "broken").judged == ()


def broken(content):
    raise InputError("no answer today")


def test_an_endpoint_that_is_not_there_is_said_before_anything_is_read(
    tiny_checkpoint, planted, settings, monkeypatch
):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    model = load(str(tiny_checkpoint("llama")), {"says": str(planted)}, device="cpu")
    with pytest.raises(InputError, match="no endpoint"):
        read(model, "says", settings.model_copy(update={"judge": "a-model"}))
    assert model.nulls_of("says") == ()
