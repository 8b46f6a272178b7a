"""Each way of breaking the service still fits it, and names judges and faults that there are."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.torture.mutants import Trial, trials
from tests.torture.mutations import CALM, MUTATIONS, Edit, Mutation, broken_copy
from tests.torture.nemesis import AROUND, INSIDE
from tests.torture.processes import ROOT
from tests.torture.test_checker import BREAKS
from tests.torture.verdict import Verdict


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.name for mutation in MUTATIONS])
def test_mutation_fits_the_service_and_leaves_it_valid_python(mutation: Mutation, tmp_path: Path) -> None:
    code = broken_copy(mutation.edits, tmp_path / "code")

    for path in {edit.path for edit in mutation.edits}:
        changed = (code / path).read_text(encoding="utf-8")
        compile(changed, path, "exec")
        assert changed != (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.name for mutation in MUTATIONS])
def test_mutation_names_judges_and_faults_that_there_are(mutation: Mutation) -> None:
    assert mutation.caught_by
    assert mutation.caught_by <= {invariant for invariant, _ in BREAKS}
    assert mutation.provocation.kinds <= {kind.name for kind in (*INSIDE, *AROUND)}


@pytest.mark.parametrize("words", ["no such words", "import"])
def test_edit_of_words_that_do_not_stand_there_once_is_refused(words: str, tmp_path: Path) -> None:
    with pytest.raises(LookupError):
        broken_copy([Edit("app/main/rooms.py", words, "")], tmp_path / "code")


def test_break_that_nobody_named_has_noticed_is_missed_and_a_find_in_the_unbroken_service_is_wrong(tmp_path: Path) -> None:
    broken, unbroken = Trial(CALM, MUTATIONS[0], tmp_path), Trial(CALM, None, tmp_path)
    noticed, other, nothing = Verdict(), Verdict(), Verdict()
    noticed.add(next(iter(MUTATIONS[0].caught_by)), "found")
    other.add("settled", "found")

    assert [broken.is_right(verdict) for verdict in (noticed, other, nothing)] == [True, False, False]
    assert [unbroken.is_right(verdict) for verdict in (other, nothing)] == [False, True]


def test_each_provocation_is_tried_on_the_unbroken_service_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tests.torture.run.DISK", tmp_path)
    chosen = [MUTATIONS[0], replace(MUTATIONS[0], name="again")]

    assert [(trial.mutation, trial.provocation) for trial in trials(chosen)] == [
        (None, chosen[0].provocation),
        *((mutation, mutation.provocation) for mutation in chosen),
    ]
