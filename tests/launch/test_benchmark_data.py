"""The benchmark of the host's pipeline on a few small crops."""

import json
import tempfile

from tests.launch import commands


def test_streams_are_measured_beside_a_loop(tmp_path):
    # Kills: a stream or the loop left out, numbers that are printed and not written, a file with paths of this machine.
    out = tmp_path / "out.json"
    done = commands.run("benchmark_data", "--images=32", "--batch=8", "--size=32", "--pairs=1", f"--out={out}")
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert json.loads(done.stdout) == report and report["jpegs"]["count"] == 32 and report["jpegs"]["mean_bytes"] > 10_000
    rows = report["streams"]
    assert [(row["stream"], row["threads"]) for row in rows] == [(kind, n) for kind in ("train", "evaluate") for n in (1, 2, 4, 8)]
    for row in rows:
        assert min(row["processor_milliseconds"], row["pillow"]["processor_milliseconds"]) > 0
        assert row["times_pillow"] == row["images_per_second"] / row["pillow"]["images_per_second"]
    assert report["resident"]["images_per_second"] > 0
    assert tempfile.gettempdir() not in out.read_text().replace(str(out), "")
