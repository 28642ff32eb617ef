"""Files that name the machines of a group: those of mlx.launch are taken, all else is refused in a sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services import hostfile
from app.settings import SettingError, Settings

HOSTS = [{"ssh": "mac1", "ips": ["10.0.0.1"]}, {"ssh": "mac2", "ips": ["10.0.0.2", "10.0.1.2"]}]
RDMA = [{"ssh": "mac1", "ips": ["10.0.0.1"], "rdma": [None, "rdma_en2"]}, HOSTS[1] | {"rdma": ["rdma_en2", None]}]


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_both_forms_of_mlx_launch_are_read(tmp_path: Path) -> None:
    plain = hostfile.read(written(tmp_path / "hosts.json", HOSTS))
    assert [host.ssh for host in plain.hosts] == ["mac1", "mac2"]
    assert (plain.hosts[1].ips, plain.back_end, plain.public_addresses) == (("10.0.0.2", "10.0.1.2"), "ring", [])
    content = {"backend": "jaccl", "envs": ["MLX_METAL_FAST_SYNCH=1"], "hosts": RDMA}
    whole = hostfile.read(written(tmp_path / "hosts.json", content))
    assert (whole.back_end, whole.variables) == ("jaccl", (("MLX_METAL_FAST_SYNCH", "1"),))
    assert whole.hosts[0].rdma == (None, "rdma_en2")


def test_only_the_ring_needs_addresses_of_all(tmp_path: Path) -> None:
    bare = [RDMA[0], {"ssh": "mac2", "rdma": RDMA[1]["rdma"]}]
    for back_end in ("jaccl", "jaccl-ring", "nccl"):
        read = hostfile.read(written(tmp_path / "hosts.json", {"hosts": bare, "backend": back_end}))
        assert [host.ips for host in read.hosts] == [("10.0.0.1",), ()]
    for hosts, back_end in ((bare, "ring"), (bare[::-1], "jaccl")):
        with pytest.raises(ValueError, match="has no ips"):
            hostfile.read(written(tmp_path / "hosts.json", {"hosts": hosts, "backend": back_end}))


def test_processes_of_one_machine_are_counted_by_it() -> None:
    names = ("mac1", "mac2", "127.0.0.1", "mac2", "localhost")
    hosts = hostfile.Hostfile(tuple(hostfile.Host(ssh, ("10.0.0.1",)) for ssh in names))
    assert [hosts.earlier_on(rank) for rank in range(5)] == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    "content, reason",
    [
        ("[", "is not JSON"),
        ({}, "no list of hosts"),
        (HOSTS[:1], "has 1 hosts"),
        (HOSTS * 40, "has 80 hosts"),
        ([HOSTS[0], {"ips": ["10.0.0.2"]}], "host 2 has no name for ssh"),
        ([HOSTS[0], {"ssh": "-oProxyCommand=x", "ips": ["10.0.0.2"]}], "is no name for ssh"),
        ([HOSTS[0], {"ssh": "mac2"}], "has no ips"),
        ([HOSTS[0], {"ssh": "mac2", "ips": ["mac2.local"]}], "is no IPv4 address"),
        ({"hosts": HOSTS, "backend": "mpi"}, "MPI starts its processes itself"),
        ({"hosts": HOSTS, "backend": "gloo"}, "is none of ring, jaccl"),
        ({"hosts": HOSTS, "backend": "jaccl"}, "needs the RDMA devices"),
        ({"hosts": [RDMA[1], RDMA[0]], "backend": "jaccl"}, "mac2 names an RDMA device to itself"),
        (
            {"hosts": [RDMA[0], RDMA[1] | {"rdma": [None, None]}], "backend": "jaccl"},
            "mac2 names no RDMA device to mac1",
        ),
        ({"hosts": HOSTS, "envs": ["a b=c"]}, "is no variable"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        hostfile.read(written(tmp_path / "hosts.json", content))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["10.0.0.1", "mac1", "a=b", "ring", ""])
    | st.text(max_size=5),
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(st.sampled_from(["hosts", "ssh", "ips", "rdma", "backend", "envs"]), values, max_size=5)
    ),
    max_leaves=20,
)


@given(content=VALUES)
def test_no_content_is_worse_than_wrong(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    path = written(tmp_path_factory.getbasetemp() / "hosts.json", content)
    try:
        assert len(hostfile.read(path).hosts) > 1
    except ValueError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"hostfile": None, "sharding": "tensor"}, "give --hostfile too"),
        ({"model": None}, "give --model too"),
        ({"draft_model": "x"}, "--hostfile does not go with --draft-model"),
        ({"hostfile": Path("/nowhere")}, "cannot be read"),
        ({"hosts": [HOSTS[0], {"ssh": "mac2", "ips": ["8.8.8.8"]}]}, "address of the internet"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    path = written(tmp_path / "hosts.json", settings.pop("hosts", HOSTS))
    with pytest.raises(SettingError, match=reason):
        Settings(**{"model": "x", "hostfile": path} | settings).check()
    Settings(model="x", hostfile=written(path, HOSTS)).check()


def test_a_server_that_mlx_launch_starts_says_what_to_do_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_RANK", "1")
    with pytest.raises(SettingError, match="give --hostfile instead"):
        Settings(model="x").check()
