"""A `nanocp serve` of the caller's own on a free port of the loopback interface."""
import json
import re
import subprocess
import tempfile
import time
import urllib.request

START_SECONDS = 60
STOP_SECONDS = 30
KEY = "sk-clients-test"


class Serving:
    """Starts the program and waits until it is ready; ends it with SIGTERM. What it wrote to stderr is
    shown if anything went wrong."""

    def __init__(self, program, *flags, key=None):
        self._log = tempfile.TemporaryFile()
        self.key = key
        command = [program, "serve", "--host", "127.0.0.1", "--port", "0", *flags]
        if key:
            command += ["--api-key", key]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        self.url = self._read_url()
        self._wait_until_ready()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.process.terminate()
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = f"none after {STOP_SECONDS} s"
        if kind or code != 0:
            print(self.log())
        if code != 0 and not kind:
            raise AssertionError(f"the server ended with exit code {code}")

    def log(self):
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def is_alive(self):
        return self.process.poll() is None

    def get(self, path, timeout=10):
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        request = urllib.request.Request(self.url + path, headers=headers)
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return response.read()

    def load(self):
        return json.loads(self.get("/load"))

    def kv_blocks_used(self):
        return sum(instance["kv_blocks_used"] for instance in self.load()["instances"])

    def wait_until_idle(self, seconds):
        """Waits until no request is open and no block is used; says what is left otherwise."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            load = self.load()
            if load["server_load"] == 0 and self.kv_blocks_used() == 0:
                return
            time.sleep(0.05)
        raise AssertionError(f"after {seconds} s the server is not idle: {self.load()}")

    def _read_url(self):
        for line in self.process.stdout:
            found = re.search(r"http://[0-9.]+:[0-9]+", line)
            if found:
                return found.group(0)
        self.process.wait()
        raise AssertionError(f"the server did not start:\n{self.log()}")

    def _wait_until_ready(self):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                self.get("/ready", timeout=2)
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(f"the server is not ready after {START_SECONDS} s:\n{self.log()}")
