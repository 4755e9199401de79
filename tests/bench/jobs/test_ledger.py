"""Results survive whatever ends the process that makes them."""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dragnoise.bench.jobs import Ledger, Shard
from dragnoise.engine import ConfigError, InputWarning, OutputError

ABOUT = {"settings": {"lr": 0.01, "steps": 50}, "model": "embedded", "sizes": (1, 2)}


def test_what_was_added_is_there(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "out", ABOUT)
    assert ledger.done() == {}
    ledger.add("a/b", {"distance_px": 1.5, "psnr": math.inf, "found": [[1, 2]]})
    ledger.add("c", {"distance_px": 0.1})
    again = Ledger(tmp_path / "out", ABOUT)
    assert again.done() == {
        "a/b": {"distance_px": 1.5, "psnr": math.inf, "found": [[1, 2]]},
        "c": {"distance_px": 0.1},
    }
    assert Ledger.found(tmp_path / "out").about == json.loads(json.dumps(ABOUT))


def test_a_later_result_counts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, ABOUT)
    ledger.add("a", {"failed": "no"})
    ledger.add("a", {"distance_px": 1})
    assert ledger.done() == {"a": {"distance_px": 1}}


def test_every_result_tells_the_commit_that_made_it(tmp_path: Path) -> None:
    file = tmp_path / "results-1-of-1.jsonl"
    file.write_text('{"name": "old", "result": {"a": 1}}\n')
    first = Ledger(tmp_path, ABOUT, commit="abc")
    first.add("a", {})
    first.add("b", {})
    Ledger(tmp_path, ABOUT, Shard(2, 2), commit="def").add("c", {})
    Ledger(tmp_path, ABOUT).add("d", {})
    Ledger(tmp_path, ABOUT, commit="def").add("a", {"again": True})
    assert first.commits() == {"old": None, "a": "def", "b": "abc", "c": "def", "d": None}
    assert first.done()["old"] == {"a": 1}
    assert first.done()["a"] == {"again": True}


def test_another_about_is_refused_and_named(tmp_path: Path) -> None:
    Ledger(tmp_path, ABOUT).add("a", {})
    other = {"settings": {"lr": 0.02, "steps": 50}, "sizes": [1, 2], "seed": 3}
    with pytest.raises(ConfigError) as refused:
        Ledger(tmp_path, other)
    message = str(refused.value)
    for part in ("settings.lr = 0.01, not 0.02", 'model = "embedded", not null', "seed = null"):
        assert part in message
    assert "steps" not in message
    assert "sizes" not in message
    assert "\n" not in message


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"about\.json"):
        Ledger.found(tmp_path)
    (tmp_path / "about.json").write_text("{")
    with pytest.raises(ConfigError, match="JSON"):
        Ledger(tmp_path, ABOUT)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        Ledger(tmp_path / "file", ABOUT)


@pytest.mark.parametrize(
    "tail", ['{"name": "c", "resu', '{"name": "c", "result": {}}', "\x00", "x"]
)
def test_a_line_cut_short_is_dropped_with_a_notice(tmp_path: Path, tail: str) -> None:
    ledger = Ledger(tmp_path, ABOUT)
    ledger.add("a", {"value": 1})
    ledger.add("b", {"value": 2})
    file = tmp_path / "results-1-of-1.jsonl"
    with file.open("a") as broken:
        broken.write(tail)
    with pytest.warns(InputWarning, match="line 3 of .* is broken"):
        assert list(Ledger(tmp_path, ABOUT).done()) == ["a", "b"]
    ledger.add("c", {"value": 3})
    assert Ledger(tmp_path, ABOUT).done()["c"] == {"value": 3}  # and no notice: it is gone
    assert len(file.read_text().splitlines()) == 3


WRITING = """
import sys
from pathlib import Path
from dragnoise.bench.jobs import Ledger, Shard
ledger = Ledger(Path(sys.argv[1]), {"a": 1}, Shard.of(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    ledger.add(f"{sys.argv[2]}:{number}", {"text": "x" * 20000, "number": number})
    print(number, flush=True)
"""


def writer(folder: Path, shard: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITING, str(folder), shard, str(count)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def started(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.filterwarnings("ignore:line .* is broken")
def test_a_process_killed_while_it_writes_loses_one_result_at_most(tmp_path: Path) -> None:
    process = writer(tmp_path, "1/1", 10**6)
    started(process)
    assert said(process) == "ready"
    while said(process) != "20":
        pass
    process.send_signal(signal.SIGKILL)
    told, _ = process.communicate()
    last = max(int(line) for line in ["20", *told.split()])
    ledger = Ledger(tmp_path, {"a": 1})
    names = list(ledger.done())
    assert names[: last + 1] == [f"1/1:{number}" for number in range(last + 1)]
    assert len(names) <= last + 2
    ledger.add("after", {"number": 1})
    assert list(ledger.done()) == [*names, "after"]


def test_shards_that_write_at_once_and_even_into_one_file(tmp_path: Path) -> None:
    shards = ["1/2", "2/2", "2/2"]
    processes = [writer(tmp_path, shard, 30) for shard in shards]
    for process in processes:
        started(process)
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    done = Ledger(tmp_path, {"a": 1}).done()
    assert set(done) == {f"{shard}:{number}" for shard in shards for number in range(30)}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "about.json",
        "results-1-of-2.jsonl",
        "results-2-of-2.jsonl",
    ]
    assert len((tmp_path / "results-2-of-2.jsonl").read_text().splitlines()) == 60
    assert Ledger(tmp_path, {"a": 1}, Shard(1, 4)).done() == done
