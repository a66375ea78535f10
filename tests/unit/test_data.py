"""Preparing data: what is written comes back, splits are by document, damage is found."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isodepth.errors import InputError
from isodepth.training.data import open_data
from isodepth.training.prepare import prepare
from isodepth.training.sources import Source, open_source
from isodepth.training.tokens import BPE_START, ByteTokenizer, build_tokenizer, load_tokenizer


def corpus(n=300, seed=0):
    """Unlike documents of 5 to 400 bytes."""
    rng = np.random.default_rng(seed)
    words = ["loop", "depth", "once", "φ", "naïve", "token", "\n", "0.46", "block"]
    return [
        f"document {i}: " + " ".join(rng.choice(words, size=rng.integers(0, 60))) for i in range(n)
    ]


def source(documents):
    return Source(name="test", documents=lambda: iter(documents))


@pytest.fixture
def prepared(tmp_path):
    out = tmp_path / "data"
    prepare(source(corpus()), out, tokenizer="bytes", validation_fraction=0.1)
    return open_data(out)


class TestPrepare:
    @pytest.mark.parametrize("tokenizer", ["bytes", "bpe:300"])
    @pytest.mark.parametrize("shard_tokens", [1 << 27, 1000])
    def test_rows_hold_the_documents_tokens(self, tmp_path, tokenizer, shard_tokens):
        documents = corpus()
        header = prepare(
            source(documents), tmp_path / "d", tokenizer=tokenizer, shard_tokens=shard_tokens
        )
        data = open_data(tmp_path / "d")
        data.verify()
        assert (len(header.train) > 3) == (shard_tokens == 1000)
        known = {tuple(tokens.tolist()) for tokens in data.tokenizer().encode(documents)}
        found = set()
        for split in ("train", "validation"):
            rows = data.rows(split, sequence_length=600, long_documents="crop")
            batch = rows.batch(np.arange(len(rows)))
            assert batch.shape == (len(rows), 601)
            assert (batch[:, 0] == header.start).all()
            for row in batch:
                starts = np.flatnonzero(row == header.start)
                whole = [tuple(p[1:].tolist()) for p in np.split(row, starts[1:])]
                *inner, last = whole  # the last one may be cropped
                assert known.issuperset(inner)
                assert last == () or any(document[: len(last)] == last for document in known)
                found.update(inner)
        assert len(found) > 0.6 * len(documents)

    def test_long_documents_are_split_without_a_gap(self, tmp_path):
        text = "".join(f"{i:06d}" for i in range(2000))
        prepare(source([text, "x" * 50, *corpus(40)]), tmp_path / "d", tokenizer="bytes",
                validation_fraction=0.2)  # fmt: skip
        data = open_data(tmp_path / "d")
        seen = []
        for split in ("train", "validation"):
            rows = data.rows(split, sequence_length=60)
            for row in rows.batch(np.arange(len(rows))):
                piece = data.tokenizer().decode(row.tolist())
                if row[0] == 256 and (row[1:] != 256).all() and piece.isdecimal():
                    seen.append(piece)
        assert sorted(seen) == [text[i : i + 60] for i in range(0, len(text), 60)]

    def test_the_split_follows_the_text_of_a_document_and_the_seed(self, tmp_path):
        def held_out(documents, name, seed=0):
            prepare(source(documents), tmp_path / name, tokenizer="bytes", seed=seed,
                    validation_fraction=0.2)  # fmt: skip
            data = open_data(tmp_path / name)
            assert data.header.documents("train") + data.header.documents("validation") == len(
                documents
            )
            return data.header

        documents = corpus(500)
        count = held_out(documents, "a").documents("validation")
        assert 60 < count < 140  # 100 ± 4.5 standard deviations
        # A copy of every document in another order doubles both splits exactly.
        doubled = held_out(documents[::-1] + documents, "b")
        assert doubled.documents("validation") == 2 * count
        other_seed = held_out(documents, "c", seed=1)
        assert other_seed.tokens("validation") != doubled.tokens("validation") // 2

    def test_same_source_same_bytes(self, tmp_path):
        checksums = {
            prepare(source(corpus()), tmp_path / name, tokenizer="bpe:320").checksum()
            for name in ("a", "b")
        }
        assert len(checksums) == 1
        other = prepare(source(corpus(seed=1)), tmp_path / "c", tokenizer="bpe:320")
        assert other.checksum() not in checksums

    def test_a_failed_preparation_leaves_nothing_behind(self, tmp_path):
        def broken():
            yield from corpus(5000)
            raise InputError("line 7 is bad")

        with pytest.raises(InputError, match="line 7"):
            prepare(Source(name="broken", documents=broken), tmp_path / "d", tokenizer="bytes")
        assert list(tmp_path.iterdir()) == []

    def test_an_existing_folder_is_never_overwritten(self, prepared):
        with pytest.raises(InputError, match="not an empty folder"):
            prepare(source(corpus()), prepared.folder, tokenizer="bytes")

    def test_empty_documents_are_left_out_and_counted(self, tmp_path):
        header = prepare(source(["", *corpus(), ""]), tmp_path / "d", tokenizer="bytes")
        assert header.empty_documents == 2
        assert header.documents("train") + header.documents("validation") == 300

    def test_a_split_without_documents_is_an_error(self, tmp_path):
        with pytest.raises(InputError, match="validation split"):
            prepare(source(["one"]), tmp_path / "d", tokenizer="bytes", validation_fraction=1e-9)
        with pytest.raises(InputError, match="must lie in"):
            prepare(source(["one"]), tmp_path / "d", tokenizer="bytes", validation_fraction=1.0)


class TestDamage:
    def test_a_changed_byte_is_found(self, prepared):
        file = prepared.folder / "train-00000.tokens"
        content = bytearray(file.read_bytes())
        content[1234] ^= 1
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"train-00000\.tokens was altered"):
            open_data(prepared.folder).verify()

    def test_a_short_or_missing_file_is_found_at_once(self, prepared):
        file = prepared.folder / "train-00000.tokens"
        file.write_bytes(file.read_bytes()[:-1])
        (prepared.folder / "validation-00000.lengths").unlink()
        with pytest.raises(InputError) as caught:
            open_data(prepared.folder)
        assert len(caught.value.problems) == 2

    @pytest.mark.parametrize(
        "change", [{"start": 3}, {"vocabulary": 9}, {"format": 99}, {"token_bytes": 4}]
    )
    def test_an_altered_header_is_found(self, prepared, change):
        file = prepared.folder / "dataset.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
        with pytest.raises(InputError, match=r"altered|format 99"):
            open_data(prepared.folder)

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', "\x00"])
    def test_a_header_that_is_none_is_an_input_error(self, prepared, content):
        (prepared.folder / "dataset.json").write_text(content)
        with pytest.raises(InputError):
            open_data(prepared.folder)

    def test_a_folder_without_data_says_what_to_do(self, tmp_path):
        with pytest.raises(InputError, match="isodepth data prepare"):
            open_data(tmp_path)

    def test_a_split_shorter_than_a_row_is_an_error(self, prepared):
        with pytest.raises(InputError, match="can't fill one row"):
            prepared.rows("validation", sequence_length=100_000)


class TestSources:
    def test_every_format_gives_the_same_documents(self, tmp_path):
        documents = corpus(50)
        rows = [json.dumps({"id": i, "text": text}) for i, text in enumerate(documents)]
        (tmp_path / "a.jsonl").write_text("\n".join(rows) + "\n\n")
        with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as stream:
            stream.write("\n".join(rows))
        pq.write_table(pa.table({"text": documents}), tmp_path / "a.parquet", row_group_size=7)
        (tmp_path / "a.txt").write_text("<|end|>".join(documents))
        folder = tmp_path / "folder"
        folder.mkdir()
        for i, text in enumerate(documents):
            (folder / f"{i:03d}.txt").write_text(text)
        for name in ("a.jsonl", "a.jsonl.gz", "a.parquet", "folder"):
            assert list(open_source(str(tmp_path / name)).documents()) == documents
        text = open_source(str(tmp_path / "a.txt"), separator="<|end|>")
        assert list(text.documents()) == documents
        assert list(text.documents()) == documents  # again from the start
        assert list(open_source(str(tmp_path / "a.txt")).documents()) == ["<|end|>".join(documents)]

    def test_a_separator_across_two_reads_still_separates(self, tmp_path):
        first = "a" * ((1 << 20) - 3)
        (tmp_path / "a.txt").write_text(first + "<|end|>" + "b")
        source = open_source(str(tmp_path / "a.txt"), separator="<|end|>")
        assert list(source.documents()) == [first, "b"]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('{"text": "a"', "line 2: not JSON"),
            ("[1]", "line 2: not a JSON object"),
            ('{"body": "a"}', "line 2: no field 'text', only"),
            ('{"text": 3}', "line 2: field 'text' holds int"),
            ('{"text": null}', "line 2: field 'text' holds NoneType"),
        ],
    )
    def test_a_bad_line_is_named(self, tmp_path, line, message):
        (tmp_path / "a.jsonl").write_text('{"text": "good"}\n' + line + "\n")
        with pytest.raises(InputError, match=message):
            list(open_source(str(tmp_path / "a.jsonl")).documents())

    def test_bad_parquet_is_named(self, tmp_path):
        (tmp_path / "a.parquet").write_text("not parquet")
        with pytest.raises(InputError, match="not a Parquet file"):
            list(open_source(str(tmp_path / "a.parquet")).documents())
        pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "b.parquet")
        with pytest.raises(InputError, match="row 2: field 'text' holds NoneType"):
            list(open_source(str(tmp_path / "b.parquet")).documents())
        with pytest.raises(InputError, match="no column 'body'"):
            list(open_source(str(tmp_path / "b.parquet"), column="body").documents())

    def test_what_names_nothing_is_an_error(self, tmp_path):
        (tmp_path / "picture.png").write_bytes(b"")
        (tmp_path / "empty").mkdir()
        for spec in (
            "nowhere.txt",
            "./a/b",
            str(tmp_path / "picture.png"),
            str(tmp_path / "empty"),
        ):
            with pytest.raises(InputError):
                open_source(spec)
        with pytest.raises(InputError, match="separator is empty"):
            open_source(str(tmp_path), separator="")

    def test_the_standard_library_is_real_text_without_tests(self):
        documents = list(open_source("stdlib").documents())
        assert documents == list(open_source("stdlib").documents())
        assert len(documents) > 400
        assert sum(map(len, documents)) > 8_000_000
        import argparse

        import test.support

        assert Path(argparse.__file__).read_text() in documents
        assert Path(test.support.__file__).read_text() not in documents

    def test_the_hub_offline_is_an_input_error(self):
        pytest.importorskip("datasets")
        script = (
            "from isodepth.training.sources import open_source\n"
            "from isodepth import InputError\n"
            "try:\n    next(open_source('nobody/no-such-data-set').documents())\n"
            "except InputError as error:\n    print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60,
            env={"HF_HUB_OFFLINE": "1", "PYTHONPATH": ":".join(sys.path)}, check=True,
        )  # fmt: skip
        assert "nobody/no-such-data-set" in done.stdout


class TestTokenizers:
    @pytest.mark.parametrize("spec", ["bytes", "bpe:400"])
    def test_text_survives_a_round_trip_through_a_saved_tokenizer(self, tmp_path, spec):
        built = build_tokenizer(spec, corpus())
        built.save(tmp_path / "tokenizer.json")
        loaded = load_tokenizer(tmp_path / "tokenizer.json")
        assert (loaded.vocab, loaded.start) == (built.vocab, built.start)
        texts = [*corpus(20), "日本語 \x00 tab\t", " leading", "é" * 50]
        for text, tokens in zip(texts, loaded.encode(texts), strict=True):
            assert max(tokens.tolist()) < loaded.vocab
            assert loaded.start not in tokens
            assert loaded.decode([loaded.start, *tokens.tolist()]) == text

    def test_a_bpe_has_the_size_asked_for_and_shortens_text(self):
        bpe = build_tokenizer("bpe:400", corpus())
        assert bpe.vocab == 400
        text = corpus(1, seed=9)
        assert len(bpe.encode(text)[0]) < 0.6 * len(ByteTokenizer().encode(text)[0])

    def test_a_document_cannot_forge_a_start_token(self, tmp_path):
        bpe = build_tokenizer("bpe:400", corpus())
        bpe.save(tmp_path / "tokenizer.json")
        for tokenizer in (bpe, load_tokenizer(tmp_path / "tokenizer.json")):
            tokens = tokenizer.encode([f"a {BPE_START} b"])[0]
            assert tokenizer.start not in tokens
            assert tokenizer.decode(tokens.tolist()) == f"a {BPE_START} b"

    def test_lone_surrogates_are_replaced(self):
        for spec in ("bytes", "bpe:300"):
            tokenizer = build_tokenizer(spec, corpus())
            assert tokenizer.decode(tokenizer.encode(["a\ud800b"])[0].tolist()) == "a?b"

    def test_a_named_start_token_is_used_and_a_missing_one_is_an_error(self, tmp_path):
        file = tmp_path / "tokenizer.json"
        build_tokenizer("bpe:300", corpus()).save(file)
        content = json.loads(file.read_text().replace(BPE_START, "[DOC]"))
        file.write_text(json.dumps(content))
        with pytest.raises(InputError, match="--start-token"):
            build_tokenizer(str(file), [])
        assert build_tokenizer(str(file), [], start_token="[DOC]").start == 0

    @pytest.mark.parametrize("spec", ["bpe:", "bpe:12", "bpe:1e4", "no-such-file.json"])
    def test_what_names_no_tokenizer_is_an_error(self, spec):
        with pytest.raises(InputError, match="tokenizer"):
            build_tokenizer(spec, corpus())

    def test_too_little_text_for_the_vocabulary_is_an_error(self):
        with pytest.raises(InputError, match="only enough text"):
            build_tokenizer("bpe:5000", ["short"])

    def test_a_broken_file_is_an_error(self, tmp_path):
        for content in ("", "{", '{"model": 3}'):
            (tmp_path / "tokenizer.json").write_text(content)
            with pytest.raises(InputError, match=r"tokenizer\.json"):
                load_tokenizer(tmp_path / "tokenizer.json")
