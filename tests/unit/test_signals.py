"""Signals that end servers, in a process that has them as a worker has."""

import subprocess
import sys
import textwrap

import pytest


def ran(script: str, *, ignored: str = "") -> str:
    """What a process prints that outlives the signals and starts children as models do."""
    head = """
        import os, signal, subprocess, sys, threading, time
        from inferd.worker import signals
        signals.outlive()
        signals.restore_in_children()
        ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
        def ended(pid):
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    """
    text = textwrap.dedent(head) + textwrap.dedent(script)
    command = [
        "sh",
        "-c",
        f'trap "" {ignored}; exec "$@"' if ignored else 'exec "$@"',
        "sh",
        sys.executable,
        "-c",
        text,
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def test_they_end_nothing_and_interrupt_no_system_call():
    script = """
        import ctypes
        read, write = os.pipe()
        def send():
            for number in ENDING:
                os.kill(os.getpid(), number)
            os.write(write, b"x")
        timer = threading.Timer(0.05, send)
        timer.start()
        libc, buffer = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(1)
        # Not Python's own read, which begins again by itself.
        print(libc.read(read, buffer, 1), buffer.value)
    """
    assert ran(script) == "1 b'x'"


@pytest.mark.parametrize("thread", [False, True])
def test_children_end_by_them(thread):
    script = """
        def check():
            for number in (signal.SIGHUP, signal.SIGTERM):
                for _ in range(50):
                    pid = os.fork()
                    if pid == 0:
                        time.sleep(1000)
                    # At once: before the child has done anything.
                    os.kill(pid, number)
                    assert ended(pid) == -number
            for number in ENDING:
                with subprocess.Popen(["sleep", "1000"]) as child:
                    child.send_signal(number)
                    assert child.wait(20) == -number
            pid = os.fork()
            if pid == 0:
                try:
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(1000)
                except KeyboardInterrupt:
                    os._exit(7)
            assert ended(pid) == 7
            assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
            print("right")
    """
    call = "thread = threading.Thread(target=check); thread.start(); thread.join()" if thread else "check()"
    assert ran(script + f"\n        {call}\n") == "right"


def test_a_handler_of_the_model_is_its_childrens_too():
    script = """
        signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
        pid = os.fork()
        if pid == 0:
            print("ready", flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1000)
        print(ended(pid))
    """
    assert ran(script) == "ready\n5"


def test_what_was_ignored_stays_ignored():
    script = """
        print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)
    """
    assert ran(script, ignored="HUP") == "True False"


def test_what_was_blocked_at_the_start_is_not_afterwards():
    script = "print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
    text = f"import signal; from inferd.worker import signals; signals.outlive(); {script}"
    blocked = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [1, 2, 15]); os.kill(os.getpid(), 15);"
    command = [sys.executable, "-c", f"{blocked} os.execv(sys.executable, [sys.executable, '-c', {text!r}])"]
    assert subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip() == "set()"
