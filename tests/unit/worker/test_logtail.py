from pathlib import Path

from worker.logtail import CHUNK_BYTES, LogTail


def _read_all(tail: LogTail) -> list[str]:
    texts: list[str] = []
    while (chunk := tail.read()) is not None:
        assert chunk.sequence == len(texts)
        texts.append(chunk.text)
    return texts


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("one\n", encoding="utf-8")
    tail = LogTail(log, attempt=3, max_bytes=1000)
    first = tail.read()
    assert first is not None
    assert (first.attempt, first.sequence, first.text) == (3, 0, "one\n")
    assert tail.read() is None
    with log.open("a", encoding="utf-8") as more:
        more.write("two\n")
    second = tail.read()
    assert second is not None
    assert (second.sequence, second.text) == (1, "two\n")


def test_a_character_cut_by_the_end_of_a_piece_is_whole_in_the_next(tmp_path: Path) -> None:
    log = tmp_path / "log"
    text = "x" * (CHUNK_BYTES - 1) + "é" + "y"
    log.write_text(text, encoding="utf-8")
    pieces = _read_all(LogTail(log, attempt=1, max_bytes=10**6))
    assert len(pieces) == 2
    assert "".join(pieces) == text


def test_bytes_that_are_no_text_and_nul_do_not_stop_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"a\xff\x00b\n")
    assert _read_all(LogTail(log, attempt=1, max_bytes=1000)) == ["a\ufffd\ufffdb\n"]


def test_a_log_that_is_too_long_is_cut_and_says_so(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("z" * 500, encoding="utf-8")
    tail = LogTail(log, attempt=1, max_bytes=100)
    (text,) = _read_all(tail)
    assert text.startswith("z" * 100 + "\n[orch: the log is longer")
    assert "z" * 101 not in text
