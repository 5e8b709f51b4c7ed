"""Keeps every Python of the test's SkyPilot on this machine, and answers its question whether there is an internet.

SkyPilot asks no managed job how it stands while neither https://8.8.8.8 nor https://1.1.1.1 answers. Here it asks its
own API server instead. Whoever is asked for beyond loopback is written to the file FTL_TEST_REFUSED names.
"""

import importlib.abc
import importlib.util
import ipaddress
import os
import socket
import sys

_connect, _connect_ex, _getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo


def _is_here(host):
    if host in (None, "", "localhost", b"localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _refused(host):
    path = os.environ.get("FTL_TEST_REFUSED")
    if path:
        with open(path, "a") as file:  # noqa: PTH123  # every Python of the server reads this file: no import too many
            file.write(f"{host} {sys.argv[:2]}\n")
    return f"{host}: the test lets nothing leave this machine"


def _guarded(original):
    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(address[0]):
            raise ConnectionRefusedError(_refused(address[0]))
        return original(self, address)

    return connect


def _resolve(host, *rest, **options):
    if _is_here(host):
        return _getaddrinfo(host, *rest, **options)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise socket.gaierror(socket.EAI_NONAME, _refused(host)) from None
    return _getaddrinfo(host, *rest, **options)


socket.socket.connect, socket.socket.connect_ex = _guarded(_connect), _guarded(_connect_ex)
socket.getaddrinfo = _resolve


class _Probe(importlib.abc.MetaPathFinder):
    """Puts our address in the place of the probe's, once the module that holds them is loaded."""

    name = "sky.backends.backend_utils"

    def find_spec(self, fullname, path, target=None):
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        load = spec.loader.exec_module

        def load_and_replace(module):
            load(module)
            assert module._TEST_IP_LIST
            module._TEST_IP_LIST = [os.environ["FTL_TEST_PROBE"]]

        spec.loader.exec_module = load_and_replace
        return spec


if "FTL_TEST_PROBE" in os.environ:
    sys.meta_path.insert(0, _Probe())
