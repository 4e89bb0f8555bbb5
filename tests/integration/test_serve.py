"""The command `syncws serve`: real processes, signals and sockets."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

import syncws
from tests.integration.serving import (
    MODULE,
    command,
    descriptors,
    environment,
    refused,
    served,
)
from tests.programs import free_port, running
from tests.support import HANG, RawPeer, Task, authority, wait_until

pytest.importorskip("click")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux does")


def echoed(client: syncws.Client, text: str) -> None:
    client.send_text(text)
    assert client.receive_text(timeout=HANG) == text


def gone_away(client: syncws.Client) -> None:
    """Its process has ended the connection in order."""
    with client, pytest.raises(syncws.ConnectionClosed) as caught:
        client.receive(timeout=HANG)
    assert caught.value.received is not None
    assert caught.value.received.code == 1001


# -- Starting and stopping ---------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
def test_as_many_processes_serve_as_are_wanted(tmp_path: Path, count: int) -> None:
    with served(tmp_path, "--processes", str(count)) as it:
        pids = it.pids(count)
        assert it.program.process.pid not in pids
        it.program.wait_to_say(f"pid {it.program.process.pid}\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_clients_get_1001_and_the_command_ends_with_0(tmp_path: Path, number: int) -> None:
    with served(tmp_path, "--processes", "2") as it, ExitStack() as stack:
        clients = [stack.enter_context(it.connect()[0]) for _ in range(8)]
        it.program.signal(number)
        for client in clients:
            gone_away(client)
        assert it.program.wait() == 0


def test_a_ctrl_c_for_the_whole_group_ends_it_in_order(tmp_path: Path) -> None:
    with served(tmp_path, "--processes", "2") as it:
        client, pid, _ = it.connect()
        with client:
            os.killpg(it.program.process.pid, signal.SIGINT)
            gone_away(client)
        assert it.program.wait() == 0
        assert it.ended(pid)
        assert "Traceback" not in it.program.output


def test_the_end_of_the_whole_group_may_come_before_anything_listens(tmp_path: Path) -> None:
    """Also of the process that loads the module: which is no failure then."""
    (tmp_path / "chat.py").write_text("import time; print('loading', flush=True); time.sleep(600)")
    with running(
        command("chat:listener"), log=tmp_path / "log", cwd=tmp_path, env=environment()
    ) as program:
        program.wait_for(lambda: "loading" in program.output)
        os.killpg(program.process.pid, signal.SIGTERM)
        assert program.wait() == 0
        assert "has ended" not in program.output


STUBBORN = MODULE.replace(
    "    def on_text(self, caller, text):\n",
    "    def on_text(self, caller, text):\n"
    "        caller.send_text('blocked')\n"
    "        import threading; threading.Event().wait()\n",
)


def test_the_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with served(tmp_path, "--graceful-timeout", "600", module=STUBBORN) as it:
        client, pid, _ = it.connect()
        client.send_text("go")
        client.receive_text(timeout=HANG)
        it.program.signal(signal.SIGTERM)
        it.program.wait_for(lambda: "stopping" in it.program.output)
        assert not it.ended(pid)
        it.program.signal(signal.SIGTERM)
        assert it.program.wait() == 1
        assert it.ended(pid)
        client.close(timeout=0)


def test_a_callback_that_does_not_return_is_left_behind(tmp_path: Path) -> None:
    with served(tmp_path, "--graceful-timeout", "0.1", module=STUBBORN) as it:
        client, pid, _ = it.connect()
        client.send_text("go")
        client.receive_text(timeout=HANG)
        it.program.signal(signal.SIGTERM)
        assert it.program.wait() == 0
        assert it.ended(pid)
        client.close(timeout=0)


def test_processes_end_with_their_supervisor(tmp_path: Path) -> None:
    with served(tmp_path, "--processes", "2") as it:
        pids = it.pids(2)
        client, _, _ = it.connect()
        with client:
            it.program.process.kill()
            gone_away(client)
        for pid in pids:  # by whoever has inherited them
            wait_until(lambda pid=pid: it.ended(pid) or is_zombie(pid))


def is_zombie(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


# -- What cannot be served ---------------------------------------------------


@pytest.mark.parametrize(
    ("target", "module", "said"),
    [
        ("chatt:listener", MODULE, "syncws: there is no module 'chatt'"),
        ("chat.py:listener", MODULE, "write chat without .py"),
        ("chat.x:listener", MODULE, "syncws: "),
        ("chat:lisener", MODULE, "syncws: module 'chat' has no 'lisener'; did you mean 'listener'"),
        ("chat:VERSION.real.x", "VERSION = 1", "syncws: module 'chat' has no 'VERSION.real.x'"),
        ("chat:VERSION", MODULE, "syncws: chat:VERSION is no syncws.Listener, but '1'"),
        ("chat:listener", "import nothere\n", "No module named 'nothere'"),
        ("chat:listener", "1 +\n", "SyntaxError: invalid syntax"),
        ("chat:listener", f"{MODULE}\nlistener.serve_forever()\n", "calls serve_forever()"),
        ("chat:listener", f"{MODULE}\nlistener.start()\n", "is started already"),
        ("chat:make", f"{MODULE}\ndef make(): return 1 / 0\n", "ZeroDivisionError"),
        ("chat:make", f"{MODULE}\ndef make(): return 'x'\n", "is no syncws.Listener, but 'x'"),
        ("chat:make", f"{MODULE}\ndef make(x): return x\n", "missing 1 required"),
    ],
)
def test_what_cannot_be_served(target: str, module: str, said: str, tmp_path: Path) -> None:
    output = refused(tmp_path, module, target=target)
    assert said in output
    assert "importlib" not in output
    assert "serving.py" not in output  # nothing of ours in a traceback


def test_the_status_is_that_of_a_module_that_ends_python(tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text("import sys; sys.exit(7)\n")
    with running(
        command("chat:listener"), log=tmp_path / "log", cwd=tmp_path, env=environment()
    ) as program:
        assert program.wait() == 7


def test_a_function_may_make_the_listener(tmp_path: Path) -> None:
    with served(
        tmp_path, module=f"{MODULE}\ndef make(): return listener\n", target="chat:make"
    ) as it:
        assert it.ask()[1] == "1"


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        own = MODULE.replace("Listener(0)", f"Listener({port})")
        assert f"cannot listen on 127.0.0.1 port {port}" in refused(tmp_path, own)
        bind = f"127.0.0.1:{port}"
        output = refused(tmp_path, MODULE, "--bind", bind, "--processes", "2")
        assert f"cannot listen on 127.0.0.1 port {port}" in output


def test_a_second_command_does_not_join_the_port(tmp_path: Path) -> None:
    with served(tmp_path, "--processes", "2") as it:
        other = tmp_path / "other"
        other.mkdir()
        output = refused(other, MODULE, "--bind", f"127.0.0.1:{it.port}", "--processes", "2")
        assert f"cannot listen on 127.0.0.1 port {it.port}" in output


def test_without_click_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['click'] = None; from syncws.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=HANG,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "The command needs click: pip install click\n"


# -- Processes that end ------------------------------------------------------


def test_a_process_that_is_killed_is_replaced_and_the_others_go_on(tmp_path: Path) -> None:
    with served(tmp_path, "--processes", "2") as it:
        clients = it.meet(2)
        victim, other = clients
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(syncws.ConnectionClosed):
            clients[victim].receive(timeout=HANG)
        echoed(clients[other], "still here")
        assert victim not in it.pids(2)
        echoed(clients[other], "still here")
        clients[other].close()
        assert it.ended(victim)


def test_the_clients_of_a_process_that_does_not_start_meet_another_one(tmp_path: Path) -> None:
    with served(tmp_path, "--processes", "2") as it:
        clients = it.meet(2)
        victim, other = clients
        it.write(VERSION="1 +\nVERSION")
        os.kill(victim, signal.SIGKILL)
        it.program.wait_for(lambda: "SyntaxError" in it.program.output)
        # Of twenty half would wait for ever, but for the other one.
        assert {it.ask()[0] for _ in range(20)} == {other}
        it.write()
        assert victim not in it.pids(2)  # the next attempt comes by itself
        for client in clients.values():
            client.close()


def test_a_process_that_gets_sigterm_retires_and_is_replaced(tmp_path: Path) -> None:
    with served(tmp_path) as it:
        client, pid, _ = it.connect()
        os.kill(pid, signal.SIGTERM)
        gone_away(client)
        assert it.ask()[0] != pid
        assert it.program.process.poll() is None


def test_a_process_whose_listener_stops_itself_is_replaced(tmp_path: Path) -> None:
    module = MODULE.replace("caller.send_text(text)", "listener.stop(0)")
    with served(tmp_path, module=module) as it:
        client, pid, _ = it.connect()
        with client, suppress(syncws.ConnectionClosed):
            client.send_text("stop")
            client.receive(timeout=HANG)
        assert it.ask()[0] != pid
        it.program.wait_to_say("the listener was stopped in its own process")
        it.program.signal(signal.SIGTERM)
        assert it.program.wait() == 0


def test_nothing_is_left_of_processes_that_were_replaced(tmp_path: Path) -> None:
    rounds = int(os.environ.get("SYNCWS_RELOADS", "5"))
    with served(tmp_path, "--processes", "2") as it:
        supervisor = it.program.process.pid
        before = descriptors(supervisor), [descriptors(pid) for pid in children(supervisor)]
        for _ in range(rounds):
            old = set(children(supervisor))
            it.reload()
            wait_until(lambda old=old: not old & set(children(supervisor)))
        wait_until(lambda: len(children(supervisor)) == 2)
        wait_until(
            lambda: (
                (descriptors(supervisor), [descriptors(pid) for pid in children(supervisor)])
                == before
            )
        )


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# -- Reloading ---------------------------------------------------------------


def test_new_clients_meet_new_code_and_old_ones_get_1001(tmp_path: Path) -> None:
    with served(tmp_path, "--processes", "2") as it:
        assert it.ask()[1] == "1"
        clients = it.meet(2)
        it.write(**{'"1"': '"2"'})
        it.reload()
        for client in clients.values():
            gone_away(client)  # from now on its process accepts nobody
        assert {it.ask()[1] for _ in range(8)} == {"2"}
        assert not clients.keys() & it.pids(2)


@pytest.mark.parametrize("broken", ["1 +", "raise RuntimeError('no')", "import sys; sys.exit(0)"])
def test_broken_code_leaves_the_old_processes_alone(tmp_path: Path, broken: str) -> None:
    with served(tmp_path, "--processes", "2") as it:
        clients = it.meet(2)
        it.write(VERSION=f"{broken}\nVERSION")
        it.reload()
        it.program.wait_to_say("the new code does not start")
        for client in clients.values():
            echoed(client, "still here")
        assert it.pids(2) == clients.keys()
        it.write(**{'"1"': '"3"'})
        it.reload()
        for client in clients.values():
            gone_away(client)  # from now on its process accepts nobody
        assert it.ask()[1] == "3"


REQUEST = RawPeer.request()


class Stream:
    """Clients that come one after another; what became of those that failed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self.opened = 0
        self.failures: list[str] = []

    def run(self) -> None:
        """Connect, have the handshake accepted, and hang up, again and again."""
        while not self._over.is_set():
            try:
                self._connect()
                self.opened += 1
            except OSError as exc:
                self.failures.append(repr(exc))

    def _connect(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port), HANG) as sock:
            sock.sendall(REQUEST)
            data = sock.recv(4096)
            if not data.startswith(b"HTTP/1.1 101 "):
                raise ConnectionError(f"answered with {data!r}")
            # The end is at once, so that no port waits for it.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def stop(self) -> None:
        """Let the last one come to its end."""
        self._over.set()


@pytest.mark.parametrize("options", [("--processes", "2"), ("--processes", "1")])
def test_reloads_lose_no_client(tmp_path: Path, options: tuple[str, ...]) -> None:
    with served(tmp_path, *options, "--graceful-timeout", "20") as it:
        streams = [Stream(it.port) for _ in range(4)]
        tasks = [Task(stream.run) for stream in streams]
        for _ in range(5):
            it.reload()
        for stream in streams:
            stream.stop()
        for task in tasks:
            task.result()
        assert [text for stream in streams for text in stream.failures] == []
        assert all(stream.opened for stream in streams)


# -- Where to listen ---------------------------------------------------------


def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with served(tmp_path, "--processes", "2", "--bind", f"unix:{path}") as it:
        it.program.wait_to_say(f"Listening on unix:{path} with 2 processes")
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(HANG)
                sock.connect(path)
                sock.sendall(REQUEST)
                assert sock.recv(4096).startswith(b"HTTP/1.1 101 ")
            it.reload()
            assert os.path.exists(path)
        it.program.signal(signal.SIGTERM)
        assert it.program.wait() == 0
        assert not os.path.exists(path)


def test_a_listener_of_a_unix_path(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    module = MODULE.replace("Listener(0)", f"Listener(unix_path={path!r})")
    with served(tmp_path, module=module) as it:
        it.reload()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)


def test_several_addresses(tmp_path: Path) -> None:
    path, port = str(tmp_path / "socket"), free_port()
    binds = ("--bind", f"127.0.0.1:{port}", "--bind", f"unix:{path}", "--bind", "127.0.0.1:0")
    with served(tmp_path, "--processes", "2", *binds) as it:
        assert it.port == port
        it.pids(2)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)


@pytest.mark.parametrize("bind", ["fd://{}", "fd:{}"])
def test_a_descriptor(tmp_path: Path, bind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.set_inheritable(True)
        # A shell passes on what this process has, which is closed by subprocess otherwise.
        code = "import os, sys; os.dup2(int(sys.argv[1]), 5); os.execv(sys.argv[2], sys.argv[2:])"
        path = tmp_path / "chat.py"
        path.write_text(MODULE)
        argv = [sys.executable, "-c", code, str(sock.fileno())]
        argv += command("chat:listener", "--bind", bind.format(5), "--processes", "2")
        with (
            (tmp_path / "log").open("wb") as log,
            subprocess.Popen(
                argv, cwd=tmp_path, env=environment(), pass_fds=[sock.fileno()], stderr=log
            ) as process,
        ):
            try:
                with syncws.Client(f"ws://127.0.0.1:{sock.getsockname()[1]}/") as client:
                    client.receive_text(timeout=HANG)
            finally:
                process.terminate()
            assert process.wait(HANG) == 0


# -- Being ready -------------------------------------------------------------


def test_systemd_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(HANG)
        sock.bind(path)
        with served(tmp_path, "--processes", "2", env={"NOTIFY_SOCKET": path}) as it:
            ready = sock.recv(4096).decode()
            assert ready.startswith(f"READY=1\nMAINPID={it.program.process.pid}\n")
            assert "with 2 processes" in ready
            it.pids(2)
            it.program.signal(signal.SIGHUP)
            assert re.match(r"RELOADING=1\nMONOTONIC_USEC=\d+\n", sock.recv(4096).decode())
            assert sock.recv(4096).startswith(b"READY=1\n")
            it.program.signal(signal.SIGTERM)
            assert sock.recv(4096).startswith(b"STOPPING=1\n")
            assert it.program.wait() == 0


def test_an_abstract_socket_of_systemd(tmp_path: Path) -> None:
    name = f"syncws-{os.getpid()}-{os.urandom(4).hex()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(HANG)
        sock.bind("\0" + name)
        with served(tmp_path, env={"NOTIFY_SOCKET": f"@{name}"}):
            assert sock.recv(4096).startswith(b"READY=1\n")


def test_a_descriptor_is_told(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        path = tmp_path / "chat.py"
        path.write_text(MODULE)
        argv = command("chat:listener", "--processes", "2", "--ready-fd", str(writing))
        with subprocess.Popen(
            argv,
            cwd=tmp_path,
            env=environment(),
            pass_fds=[writing],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                os.close(writing)
                writing = -1
                assert select.select([reading], [], [], HANG)[0]
                assert os.read(reading, 100) == b"ready\n"
                assert process.stdout is not None
                assert process.stdout.readline().startswith(b"Listening on 127.0.0.1:")
                assert os.read(reading, 100) == b""  # nobody else has it
            finally:
                process.terminate()
            assert process.wait(HANG) == 0
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


def test_the_file_with_the_pid(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with served(tmp_path, "--pid-file", str(path)) as it:
        assert path.read_text() == f"{it.program.process.pid}\n"
        it.reload()
        assert path.exists()
        it.program.signal(signal.SIGTERM)
        assert it.program.wait() == 0
        assert not path.exists()


def test_a_command_that_cannot_have_the_address_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with served(tmp_path, "--pid-file", str(path)) as it:
        before = path.read_text()
        other = tmp_path / "other"
        other.mkdir()
        module = MODULE.replace("Listener(0)", f"Listener({it.port})")
        assert "another program does" in refused(other, module, "--pid-file", str(path))
        assert path.read_text() == before
        path.write_text("1\n")
        it.program.signal(signal.SIGTERM)
        assert it.program.wait() == 0
        assert path.read_text() == "1\n"  # another's


def test_a_file_with_the_pid_that_cannot_be_written(tmp_path: Path) -> None:
    output = refused(tmp_path, MODULE, "--pid-file", str(tmp_path / "no" / "pid"))
    assert f"cannot write the pid file {tmp_path / 'no' / 'pid'}: No such file" in output


def test_stdout_may_be_told_and_stays_open(tmp_path: Path) -> None:
    module = MODULE.replace('VERSION = "1"', 'VERSION = os.readlink("/proc/self/fd/1")')
    with served(tmp_path, "--ready-fd", "1", module=module) as it:
        assert it.ask()[1] == str(tmp_path / "log")
        it.program.wait_for(lambda: "ready\n" in it.program.output)
        it.reload()
        assert it.ask()[1] == str(tmp_path / "log")


def test_an_address_that_cannot_be_had_leaves_no_path_of_another(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        taken = f"127.0.0.1:{sock.getsockname()[1]}"
        assert taken.rpartition(":")[2] in refused(
            tmp_path, MODULE, "--bind", f"unix:{path}", "--bind", taken
        )
    assert not path.exists()


# -- Socket activation -------------------------------------------------------

# Does what systemd does between fork and exec.
ACTIVATE = """
import os, sys
number, names, *argv = sys.argv[1:]
os.dup2(int(number), 3, inheritable=True)
os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES=names, LISTEN_PID=str(os.getpid()))
os.execv(argv[0], argv)
"""


@pytest.mark.parametrize(
    "options", [(), ("--bind", "systemd"), ("--bind", "systemd:chat", "--processes", "2")]
)
def test_a_socket_of_systemd(tmp_path: Path, options: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        (tmp_path / "chat.py").write_text(MODULE)
        argv = [sys.executable, "-c", ACTIVATE, str(sock.fileno()), "chat"]
        with subprocess.Popen(
            [*argv, *command("chat:listener", *options)],
            cwd=tmp_path,
            env=environment(),
            pass_fds=[sock.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            try:
                # Who comes before it is up only waits.
                with syncws.Client(f"ws://127.0.0.1:{port}/") as client:
                    client.receive_text(timeout=HANG)
                assert process.stdout is not None
                assert process.stdout.readline().startswith(f"Listening on 127.0.0.1:{port} ")
            finally:
                process.terminate()
            assert process.wait(HANG) == 0
        with socket.create_connection(("127.0.0.1", port)):  # it is still the parent's
            pass


PLAIN = """
import sys
import syncws

class Echo(syncws.Service):
    def on_open(self, caller):
        caller.send_text("well")

listener = syncws.Listener(sockets=syncws.systemd_sockets())
listener.attach("/", Echo())
print(listener.port, flush=True)
listener.serve_forever()
"""


def test_a_plain_listener_on_a_socket_of_systemd(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        argv = [sys.executable, "-c", ACTIVATE, str(sock.fileno()), "chat"]
        with subprocess.Popen(
            [*argv, sys.executable, "-c", PLAIN],
            env=environment(),
            pass_fds=[sock.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == f"{port}\n"
                with syncws.Client(f"ws://127.0.0.1:{port}/") as client:
                    assert client.receive_text(timeout=HANG) == "well"
            finally:
                process.terminate()
            assert process.wait(HANG) == 0


def test_systemds_own_tool_starts_it(tmp_path: Path) -> None:
    tool = shutil.which("systemd-socket-activate")
    if tool is None:
        pytest.skip("systemd-socket-activate is not installed")
    (tmp_path / "chat.py").write_text(MODULE)
    path = tmp_path / "socket"
    keep = [f"--setenv={key}" for key in ("PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")]
    argv = [tool, f"--listen={path}", "--fdname=chat", *keep]
    argv += command("chat:listener", "--processes", "2", "--bind", "systemd:chat")
    with running(argv, log=tmp_path / "log", cwd=tmp_path, env=environment()) as program:
        program.wait_for(path.exists)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(HANG)
            wait_until(lambda: sock.connect_ex(str(path)) == 0)
            sock.sendall(REQUEST)
            assert sock.recv(4096).startswith(b"HTTP/1.1 101 ")
        program.wait_for(lambda: f"Listening on unix:{path} with 2" in program.output)
        program.signal(signal.SIGTERM)
        assert program.wait() == 0


def test_a_name_that_systemd_has_not_passed(tmp_path: Path) -> None:
    output = refused(tmp_path, MODULE, "--bind", "systemd:chat")
    assert output == "syncws: systemd has passed no socket that is named 'chat' to this process\n"


# -- For development ---------------------------------------------------------


def test_changed_code_is_loaded_by_itself(tmp_path: Path) -> None:
    with served(tmp_path, "--reload") as it:
        pid, version = it.ask()
        assert version == "1"
        it.write(**{'VERSION = "1"': 'VERSION = "22"'})
        it.program.wait_for(lambda: it.ask()[1] == "22")
        it.program.wait_to_say("changed: chat.py")
        it.program.wait_for(lambda: it.ended(pid))


def test_changed_code_that_does_not_start_is_told_of(tmp_path: Path) -> None:
    with served(tmp_path, "--reload") as it:
        it.write(**{'VERSION = "1"': "VERSION = oh"})
        it.program.wait_to_say("NameError: name 'oh' is not defined")
        it.program.wait_to_say("the new code does not start (see above); the old processes go on")
        assert it.ask()[1] == "1"
        it.write(**{'VERSION = "1"': 'VERSION = "333"'})
        it.program.wait_for(lambda: it.ask()[1] == "333")


def test_tls_of_the_command_line(tmp_path: Path) -> None:
    issued = authority().issue_cert("localhost")
    cert, key, ca = (tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem"))
    issued.cert_chain_pems[0].write_to_path(str(cert))
    issued.private_key_pem.write_to_path(str(key))
    authority().cert_pem.write_to_path(str(ca))
    with served(tmp_path, "--tls-cert", str(cert), "--tls-key", str(key)) as it:
        trust = syncws.TLSConfig(ca_file=ca)
        with syncws.Client(f"wss://localhost:{it.port}/", ssl=trust) as client:
            assert client.receive_text(timeout=HANG).endswith(" 1")


def test_a_failure_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text("import syncws\n", encoding="utf-8")
    done = subprocess.run(
        command("chat:listener"),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=HANG,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "syncws: module 'chat' has no 'listener'\n"
