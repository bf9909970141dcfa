"""Every case of the corpus between sound batches, and ten seconds of random ones: all is answered, nobody is harmed."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.cases import Case, corpus
from tests.fuzz.path import FuzzPath, WrongError, check, log_of, read_found, write_found

CASES = corpus()


@pytest.fixture(scope="module")
def path() -> FuzzPath:
    return FuzzPath()


def test_the_corpus_is_large() -> None:
    assert len(CASES) >= 200


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_malformed_batch_between_sound_ones(case: Case, path: FuzzPath) -> None:
    check(path, log_of([case], 10))


def test_all_of_them_in_one_log(path: FuzzPath) -> None:
    check(path, log_of([case for case in CASES if not case.lying]))


def test_random_batches() -> None:
    command = [sys.executable, "-m", "tests.fuzz.run", "--seconds", "10", "--seed", "1"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2], check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_kept_can_be_read_back(tmp_path: Path) -> None:
    assert read_found(write_found(tmp_path, "kept", CASES[:50])) == CASES[:50]


@pytest.mark.parametrize("harm", ["lost", "doubled", "exchanged", "another reason"])
def test_the_account_sees_harm(harm: str, path: FuzzPath, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge judged: answers that a broken daemon would give are told from right ones."""
    honest = path.read

    def dishonest(*given: object) -> object:
        account = honest(*given)  # type: ignore[arg-type]
        if harm == "lost":
            del account.forecasts[1]
        elif harm == "doubled":
            account.forecasts.append(account.forecasts[1])
        elif harm == "exchanged":
            account.forecasts[1:3] = account.forecasts[2:0:-1]
        else:
            letter = account.letters[0]
            account.letters[0] = type(letter)(letter.first, letter.last, "not_json", letter.record)
        return account

    monkeypatch.setattr(path, "read", dishonest)
    null = next(case for case in CASES if case.name == "value: null")
    with pytest.raises(WrongError):
        check(path, log_of([null]))
