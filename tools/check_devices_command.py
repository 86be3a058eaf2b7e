#!/usr/bin/env python3
"""Checks `nanocp devices` of a CUDA build on this host: either it lists devices, or it ends with
exit code 1 and one line that says what is missing (driver, its version, or a device).

Usage: tools/check_devices_command.py PROGRAM
"""
import json
import re
import subprocess
import sys

EXPECTED_ERROR = re.compile(
    r"error: (no NVIDIA driver on this host|the NVIDIA driver is too old|"
    r"the NVIDIA driver reports no GPU).*\n"
)


def check(program):
    result = subprocess.run(
        [program, "devices", "--json"], capture_output=True, text=True, timeout=120, check=False
    )
    if result.returncode == 0:
        devices = json.loads(result.stdout)["devices"]
        return f"{len(devices)} devices: {devices[0]['name']}" if devices else None
    if result.returncode == 1 and not result.stdout and EXPECTED_ERROR.fullmatch(result.stderr):
        return result.stderr.strip()
    print(f"exit code {result.returncode}\n{result.stdout}{result.stderr}", file=sys.stderr)
    return None


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    answer = check(sys.argv[1])
    if answer is None:
        sys.exit("nanocp devices: neither a list of devices nor one of the expected errors")
    print(answer)
