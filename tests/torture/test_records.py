"""What a run writes down is read back as it was, and a prompt's plan by everyone alike."""

from pathlib import Path

from tests.torture import plan, records


def test_records_are_read_as_they_were_written_without_a_line_that_was_cut(tmp_path: Path) -> None:
    written = [records.Effect(f"p{n}-0-0", "effect", "call", n / 2) for n in range(3)]
    with records.Book(tmp_path / "effects.jsonl") as book:
        for record in written:
            book.write(record)
    with (tmp_path / "effects.jsonl").open("ab") as file:
        file.write(b'{"key": "p3-0')

    assert list(records.read(tmp_path, "effects*.jsonl", records.Effect)) == written


def test_last_plan_of_a_prompt_is_found() -> None:
    first, last = plan.Plan("p1"), plan.Plan("p2", calls=[["effect", "ask"]], faults=["cut"])

    assert plan.last_in(f"{first.prompt}\n{last.prompt}") == last
    assert plan.last_in("Hello {} end") is None
