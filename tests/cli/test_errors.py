"""Whatever a user gets wrong is one clear message and exit code 2: never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cli

ROOT = Path(__file__).resolve().parents[2]


def assert_refused(done: subprocess.CompletedProcess[str], *expected: str) -> None:
    message = " ".join(done.stderr.replace("│", " ").split())
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for text in expected:
        assert text in message


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["eval"], "--host"),
        (["eval", "--host", "{host}"], "either --packets FILE or --synth PROFILE"),
        (["eval", "--host", "{host}", "--synth", "traffic", "--packets", "x.csv"], "either --packets FILE or --synth"),
        (["eval", "--host", "{host}", "--synth", "storm"], "storm"),
        (["eval", "--host", "{host}", "--synth", "edges", "-n", "many"], "'many' is not a count"),
        (["eval", "--host", "{host}", "--synth", "edges", "-n", "10", "--out", "x.xlsx"], "x.xlsx"),
        (["eval", "--host", "{host}", "--synth", "edges", "-n", "10", "--table", "filter"], "go together"),
        (["eval", "--host", "{host}", "--synth", "edges", "-n", "10", "--assume", "limit"], "is not an assumption"),
        (["eval", "--host", "{host}", "--synth", "edges", "-n", "9", "--table", "filter", "--chain", "NOPE"], "NOPE"),
        (["eval", "--host", "{host}", "--packets", "{tmp}/none.csv"], "none.csv"),
        (["eval", "--host", "{tmp}/nowhere", "--synth", "edges"], "nowhere"),
        (["trace", "--host", "{host}", "--src", "198.51.100.7"], "--dst"),
        (["trace", "--host", "{host}", "--src", "198.51.100", "--dst", "10.0.2.15"], "198.51.100"),
        (["trace", "--host", "{host}", "--src", "10.0.0.1", "--dst", "10.0.0.2", "-p", "tpc"], "tpc"),
        (["trace", "--host", "{host}", "--src", "10.0.0.1", "--dst", "10.0.0.2", "--state", "old"], "old"),
        (["trace", "--host", "{host}", "--src", "10.0.0.1", "--dst", "10.0.0.2", "--flags", "SIN"], "SIN"),
        (["trace", "--host", "{host}", "--src", "10.0.0.1", "--dst", "10.0.0.2", "--mark", "0xg"], "0xg"),
        (["trace", "--host", "{host}", "--src", "10.0.0.1", "--dst", "10.0.0.2", "--dport", "99999"], "65535"),
        (["trace", "--host", "{host}", "--src", "10.0.0.1", "--dst", "10.0.0.2", "--icmp-type", "gong"], "gong"),
        (["check", "{tmp}/none.save"], "none.save"),
        (["check"], "RULES"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_bad_words(fastpath, host, tmp_path, words, expected):
    done = fastpath(*(word.format(host=host, tmp=tmp_path) for word in words))
    assert_refused(done, expected)


def test_bad_rules_show_the_place(fastpath, tmp_path):
    path = tmp_path / "bad.save"
    path.write_text("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp --dprot 22 -j ACCEPT\nCOMMIT\n")
    done = fastpath("eval", "--host", path, "--synth", "edges", "-n", "10")
    assert_refused(done, f"{path}:3:", "-A INPUT -p tcp --dprot 22 -j ACCEPT", "~^")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("iif,src,dst,proto\neth0,10.0.0.1,10.0.0.2\n", ""),
        ("iif,src,dst\neth0,10.0.0.1,10.0.0.2\n", "proto"),
        ("iif,src,dst,proto,colour\neth0,10.0.0.1,10.0.0.2,6,red\n", "colour"),
        ("iif,src,dst,proto\neth0,10.0.0.1,10.0.0.256,6\n", "10.0.0.256"),
        ("iif,src,dst,proto\neth0,10.0.0.1,10.0.0.2,600\n", "600"),
        ("", ""),
    ],
)
def test_bad_packets(fastpath, host, tmp_path, text, expected):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    assert_refused(fastpath("eval", "--host", host, "--packets", path), expected)


def test_not_a_parquet_file(fastpath, host, tmp_path):
    path = tmp_path / "bad.parquet"
    path.write_text("PAR?")
    assert_refused(fastpath("eval", "--host", host, "--packets", path))


def test_a_closed_pipe_is_quiet(host):
    command = f"{sys.executable} -m fastpath eval --host {host} --synth edges -n 10 --counters | true"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.stderr == ""


def test_interrupt_is_130_without_a_traceback(tmp_path):
    # The rules come from a pipe that nobody writes to: the command waits until it is interrupted.
    fifo = tmp_path / "rules.save"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, "-m", "fastpath", "check", fifo], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    writer = os.open(fifo, os.O_WRONLY)  # returns once the command has opened its end
    try:
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate()
    finally:
        os.close(writer)
    assert process.returncode == 130
    assert "Traceback" not in err
